"""docker compose v2 through the guard: a project of three services, as without it."""

import pytest

from parity import both, compare

PROJECT = """
name: shop
services:
  web:
    build: {context: ./web, args: {GREETING: hello}}
    image: shop/web:1
    command: ["httpd", "-f", "-p", "80", "-h", "/site"]
    volumes: ["./site:/site:ro", "state:/state"]
    networks: {front: {aliases: [shop]}}
    extra_hosts: ["upstream:10.9.9.9"]
    environment: {MODE: test}
    ports: ["127.0.0.1:8090:80"]
    healthcheck: {test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/"], interval: 200ms, retries: 1000}
    stop_grace_period: 0s
  db:
    image: busybox
    init: true
    command: ["sh", "-c", "echo db up; exec sleep 300"]
    volumes: ["state:/state", "/scratch"]
    networks: [front, back]
    tmpfs: [/run]
    ulimits: {nofile: 1000}
    mem_limit: 64m
    stop_grace_period: 0s
  job:
    image: busybox
    depends_on: {web: {condition: service_healthy}, db: {condition: service_started}}
    command: ["sh", "-c", "wget -q -O - http://shop/; grep upstream /etc/hosts; echo job done"]
    networks: [front]
    labels: {what: job}
volumes: {state: {labels: {kept: "yes"}}}
networks:
  front:
  back: {internal: true}
"""

FILES = (
    "mkdir -p web site; echo from the bind > site/index.html;"
    " printf 'FROM busybox\\nARG GREETING\\nRUN echo $GREETING > /greeting\\n' > web/Dockerfile"
)


@pytest.fixture(autouse=True)
def project(sides):
    def write(side):
        (side.work / "compose.yaml").write_text(PROJECT)
        side.run(FILES)
    both(sides, write)
    yield
    both(sides, lambda side: side.engine.wipe())


def test_a_project_from_build_to_down(sides):
    compare(sides, [
        "compose config --services",
        # Progress comes from several services at once, in no fixed order.
        "compose --progress quiet build",
        "compose --progress quiet up -d --quiet-pull",
        "docker wait shop-job-1; compose logs --no-log-prefix job; compose logs --no-color db",
        "compose ps -a --format '{{.Name}} {{.Service}} {{.State}} {{.Health}} {{.ExitCode}} {{.Publishers}}' | sort",
        "compose exec -T web sh -c 'cat /greeting /site/index.html; grep upstream /etc/hosts; echo $MODE; touch /site/x'",
        "compose exec -T db sh -c 'exit 3'", "echo typed | compose exec -T db cat",
        "compose exec -T web sh -c 'echo shared > /state/f'; compose exec -T db cat /state/f",
        "compose run --rm -T job echo one-off", "echo piped | compose run --rm --no-deps -T job cat", "compose run --rm --no-deps -T job sh -c 'exit 4'",
        "compose port web 80", "compose images --format json | grep -o '\"Repository\":\"[^\"]*\"' | sort", "compose top db | awk '{print $1, $NF}'",
        "compose cp web:/greeting - | tar xO; compose cp compose.yaml db:/tmp/; compose exec -T db head -2 /tmp/compose.yaml",
        "compose ls --format json", "docker volume inspect -f '{{json .Labels}}' shop_state", "docker network inspect -f '{{json .Labels}}' shop_front",
        "docker inspect -f '{{json .Config.Labels}}' shop-db-1 | tr , '\\n' | grep -v -e hash -e ver", "docker inspect -f '{{join .HostConfig.Binds \"\\n\"}}' shop-web-1",
        "compose --progress quiet up -d; compose ps -aq | wc -l",
        "compose --progress quiet restart -t 0 db; compose --progress quiet stop -t 0 web; compose --progress quiet start web",
        "compose --progress quiet up -d --force-recreate db; compose exec -T db ls /state",
        "compose pause db; compose unpause db", "compose --progress quiet kill db; compose --progress quiet rm -f db; compose ps -a --services | sort",
        "compose --progress quiet down -v -t 0", "docker ps -aq; docker volume ls -q; docker network ls --filter type=custom -q",
    ], ordered=False)


def test_up_in_the_foreground_with_logs(sides):
    compare(sides, [
        "compose --progress quiet build", "compose --progress quiet up --no-color --no-log-prefix --exit-code-from job --attach job -t 0",
        "compose --progress quiet down -v -t 0 --rmi local",
    ], ordered=False)


def test_followed_logs_and_events_end_with_the_project(sides):
    compare(sides, [
        "compose --progress quiet up -d db; : > seen; compose logs --no-color -f db >> seen & until grep -q 'db up' seen; do sleep 0.1; done;"
        " compose --progress quiet kill db; wait; cat seen; rm seen",
        "compose --progress quiet down -v -t 0",
    ], ordered=False)


def test_errors_are_the_same(sides):
    compare(sides, [
        "compose exec -T web true", "compose run --rm -T nope", "compose logs nope", "compose --progress quiet down",
        "printf 'services: {a: {image: absent/x, pull_policy: never}}' | compose --progress quiet -p q -f - up -d",
        "printf 'services: {a: {image: busybox, networks: [n]}}\\nnetworks: {n: {external: true}}' | compose --progress quiet -p q -f - up -d",
        "printf 'services: {a: {image: busybox, volumes: [\"v:/v\"]}}\\nvolumes: {v: {external: true}}' | compose --progress quiet -p q -f - up -d",
    ], ordered=False)
