"""Everyday docker commands give the same output and exit code through the guard as direct.

One table: a name, and the steps (see parity.py). Engines are emptied after each scenario.
"""

import pytest

from parity import RAW, Pty, both, compare

KEEP = "sleep 3000"
DOCKERFILE = r"""printf '%s\n' 'FROM busybox' 'ARG WHO=nobody' 'LABEL set=here' 'COPY hello /hello' \
 'RUN echo built for $WHO > /made' 'ENV A=b' 'CMD ["cat", "/hello", "/made"]' > ctx/Dockerfile"""
CONTEXT = f"mkdir -p ctx; echo hello > ctx/hello; {DOCKERFILE}"

SCENARIOS = {
    # --- run
    "run prints and exits 0": ["docker run --rm busybox echo hi", "docker ps -a"],
    "run hands on the exit code": ["docker run --name c1 busybox sh -c 'echo out; echo err >&2; exit 3'", "docker ps -a"],
    "run with piped stdin": ["printf 'one\\ntwo\\n' | docker run -i --rm busybox cat"],
    "run with a large piped stdin": ["head -c 3000000 /dev/zero | docker run -i --rm busybox wc -c"],
    "run with a large output": ["docker run --rm busybox sh -c 'head -c 3000000 /dev/zero' | md5sum"],
    "run without stdin": ["echo lost | docker run --rm busybox sh -c 'cat; echo end'"],
    "run at a terminal": [
        Pty("docker run -it --rm busybox sh -c 'echo name?; read x; echo hi $x; tty; exit 4'", (("name?", "you\n"),)),
    ],
    "run at a terminal, ended with ctrl-c": [
        Pty("docker run -it --rm busybox sh -c 'trap \"echo bye; exit 7\" INT; echo ready; while :; do sleep 0.1; done'", (("ready", "\x03"),)),
    ],
    "run detached": [f"docker run -d --name c1 busybox {KEEP}", "docker ps", "docker rm -f c1"],
    "run with a tiny init": ["docker run --init --rm busybox sh -c 'cat /proc/1/comm'"],
    "run with the usual options": [
        "docker run --rm -e A=b -w /tmp -u 65534:65534 --hostname h --label l=1 --memory 64m --cpus 0.5 --pids-limit 50"
        " --read-only --tmpfs /run --add-host other:10.0.0.1 --ulimit nofile=100:100 --shm-size 8m --stop-signal INT"
        " busybox sh -c 'id; pwd; hostname; echo $A; ulimit -n; grep other /etc/hosts; touch /x; touch /run/x && echo ok'",
    ],
    "run of an unknown command": ["docker run --rm busybox nope", "docker run --rm busybox /etc/passwd"],
    "run with a name in use": ["docker create --name c1 busybox", "docker run --name c1 busybox true"],
    "run with a bad option value": ["docker run --rm --memory 1k busybox true", "docker run --rm -v relative/x:y busybox true 2> /dev/null"],
    "run of an absent image": ["docker run --rm --pull never absent:1 true"],
    "run with published ports": [
        f"docker run -d --name c1 -p 8081:80 -p 127.0.0.1:8082:81/udp busybox {KEEP}",
        "docker port c1 | sort", "docker port c1 80", "docker port c1 99", "docker ps --format '{{.Ports}}'",
    ],
    "run with --cidfile and --attach": [
        "docker run --rm -a stdout --cidfile cid busybox sh -c 'echo seen; echo unseen >&2'", "wc -c < cid; rm cid",
    ],
    "run with an env file": ["printf 'A=1\\nB=2\\n' > env; docker run --rm --env-file env busybox sh -c 'echo $A$B'"],
    "run with restart policy": ["docker run -d --restart on-failure:2 --name c1 busybox false; docker wait c1",
                                "docker inspect -f '{{.HostConfig.RestartPolicy}}' c1"],
    "create, start attached": ["docker create -i --name c1 busybox sh -c 'read x; echo got $x; exit 6'",
                               "echo line | docker start -ai c1", "docker start c1", "docker start nope"],
    # --- exec and attach
    "exec": [
        f"docker run -d --name c1 busybox {KEEP}", "docker exec c1 echo hi", "docker exec c1 sh -c 'echo e1 >&2; exit 7'",
        "echo data | docker exec -i c1 cat", "head -c 2000000 /dev/zero | docker exec -i c1 wc -c",
        "docker exec -e A=b -w /tmp -u nobody c1 sh -c 'echo $A; pwd; id -u'", "docker exec c1 nope", "docker exec nope true",
        "docker exec -d c1 touch /made; until docker exec c1 test -e /made; do :; done; docker exec c1 ls /made",
        Pty("docker exec -it c1 sh -c 'echo name?; read x; echo hi $x; tty; exit 9'", (("name?", "you\n"),)),
    ],
    "exec in a stopped container": ["docker create --name c1 busybox", "docker exec c1 true"],
    "attach": [
        "docker run -di --name c1 busybox sh -c 'read x; echo got $x; sleep 0.2; exit 5'", "(echo hello; docker wait c1 > exit) | docker attach c1; rm exit",
        "docker attach c1", "docker attach nope",
    ],
    "attach at a terminal and detach": [
        "docker run -dit --name c1 busybox sh -c 'read x; echo hi $x; read x'",
        Pty("docker attach c1", ((RAW, "you\n"), ("hi you", "\x10\x11"))), "docker ps --format '{{.Status}}'",
    ],
    # --- watching
    "logs": [
        "docker run --name c1 busybox sh -c 'for i in 1 2 3; do echo o$i; echo e$i >&2; sleep 0.05; done'",
        "docker logs c1", "docker logs -t c1 2>/dev/null", "docker logs --since 1h c1",
        "docker logs --details c1 2>/dev/null", "docker logs --until 1h c1", "docker logs nope",
    ],
    "logs followed to the end": [
        "docker run -d --name c1 busybox sh -c 'for i in 1 2 3 4; do echo $i; sleep 0.2; done'", "docker logs -f c1",
        "docker logs --tail 2 c1",
    ],
    "logs followed at a terminal": [
        "docker run -dt --name c1 busybox sh -c 'for i in 1 2; do echo $i; sleep 0.2; done'", "docker logs -f c1",
    ],
    "events of a time": [
        "date +%s.%N > since; docker run --name c1 -v /v busybox true; docker rm -v c1; docker volume create v1; docker volume rm v1;"
        " docker network create n1; docker network rm n1; docker tag busybox a/b:1; docker rmi a/b:1; date +%s.%N > until",
        "docker events --since $(cat since) --until $(cat until)",
        "docker events --since $(cat since) --until $(cat until) --filter type=container --format '{{.Type}} {{.Action}}'",
        "docker events --since $(cat since) --until $(cat until) --filter container=c1 --filter event=die",
        "docker events --since $(cat since) --until $(cat until) --filter type=network --format '{{json .Actor.Attributes}}'",
        "docker events --since $(cat since) --until $(cat until) --filter image=a/b:1",
        "docker events --since $(cat since) --until $(cat until) --format '{{json .}}' | sed 's/\"time[A-Za-z]*\":[0-9]*//g'",
    ],
    "events live": [
        ": > seen; docker events --filter container=first --filter container=live --format '{{.Type}} {{.Action}} {{.Actor.Attributes.name}}' >> seen &"
        " until grep -q first seen; do docker create --name first busybox > made; docker rm first > made; done;"
        " docker run --rm --name live busybox true; until grep -q 'destroy live' seen; do sleep 0.1; done; kill $!; grep live seen; rm seen made",
    ],
    "stats and top": [
        f"docker run -d --name c1 --memory 64m busybox {KEEP}",
        "docker stats --no-stream --format '{{.Name}} {{.PIDs}} {{.MemUsage}}' | sed 's/[0-9.]*[KM]*i*B \\//USED/'",
        "docker top c1 | awk '{print $1, $NF}'", "docker top c1 -eo pid,args | awk '{print $2}'", "docker top nope", "docker stats --no-stream nope",
    ],
    "inspect a container by name and short ID": [
        f"docker run -d --name c1 --label l=1 -e A=b -v v1:/v --tmpfs /t -p 8083:80 --health-cmd true --health-interval 100ms busybox {KEEP}",
        "until [ $(docker inspect -f '{{.State.Health.Status}}' c1) != starting ]; do sleep 0.2; done",
        "docker inspect c1 | grep -v -e Output -e '\"Start\"' -e '\"End\"' | sed '/\"Log\": \\[/,/\\]/d; /\"ExecIDs\"/,/\"HostConfig\"/d'",
        "id=$(docker ps -q); docker inspect -f '{{.Name}} {{.State.Status}}' $id ${id:0:4} /c1",
        "docker inspect --size -f '{{.SizeRw}}' c1", "docker inspect -f ok c1 nope", "docker inspect nope", "docker container inspect nope",
    ],
    "ps with filters and formats": [
        f"docker run -d --name one --label a=1 busybox {KEEP}", f"docker run -d --name two --label a=2 busybox {KEEP}",
        "docker run --name three --label a=1 busybox sh -c 'exit 3'",
        "docker ps", "docker ps -a", "docker ps -aq | wc -l", "docker ps -l", "docker ps -n 2", "docker ps --no-trunc",
        "docker ps -a --filter name=o --format '{{.Names}}'", "docker ps -a --filter label=a=1 --format '{{.Names}}'",
        "docker ps -a --filter label=a --filter label=a=2 --format '{{.Names}} {{.Labels}}'",
        "docker ps -a --filter status=exited --format '{{.Names}}'", "docker ps -a --filter exited=3 --format '{{.Names}}'",
        "docker ps -a --filter ancestor=busybox --format '{{.Names}}'", "docker ps -a --filter since=one --format '{{.Names}}'",
        "docker ps -a --filter before=three --format '{{.Names}}'", "docker ps -a --filter network=bridge --format '{{.Names}}'",
        "docker ps -a --filter volume=nope -q", "docker ps --filter nope=1 2>&1 | tr I i",
        "docker ps -a --filter id=$(docker ps -aqf name=two) --format '{{.Names}} {{.Image}} {{.Command}} {{.State}}'",
        "docker ps -as --format '{{.Names}} {{.Size}}'", "docker ps --filter status=nope",
        "docker ps -a --filter network=nope -q", "docker ps -a --format '{{json .}}' | sed 's/, /,/g'",
    ],
    # --- life-cycle
    "rename, pause, unpause": [
        f"docker run -d --name c1 busybox {KEEP}", "docker rename c1 d1", "docker rename c1 e1", "docker pause d1",
        "docker ps --format '{{.Names}} {{.Status}}'", "docker exec d1 true", "docker pause d1", "docker unpause d1",
        "docker unpause d1", "docker run -d --name e1 busybox true", "docker rename d1 e1", "docker pause nope",
    ],
    "wait, kill, stop, restart": [
        f"docker run -d --name c1 busybox {KEEP}", "docker kill c1", "docker wait c1", "docker kill c1", "docker start c1",
        "docker restart -t 0 c1", "docker stop -t 0 c1", "docker stop c1", "docker wait c1 nope", "docker kill -s NOPE c1",
        "docker run -d --name t1 busybox sh -c 'trap \"exit 8\" USR1; echo ready; while :; do sleep 0.1; done'",
        "until docker logs t1 | grep -q ready; do :; done; docker kill -s USR1 t1",
        "docker wait t1", "docker restart nope", "docker stop nope", "docker kill nope",
    ],
    "wait for a running container": [
        "docker run -d --name c1 busybox sh -c 'sleep 0.5; exit 2'; docker wait c1",
    ],
    "update": [
        f"docker run -d --name c1 --memory 64m --memory-swap 64m busybox {KEEP}",
        "docker update --memory 32m --memory-swap 32m --cpus 0.5 --pids-limit 20 c1", "docker update --restart always c1",
        "docker inspect -f '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.RestartPolicy.Name}}' c1",
        "docker update --restart no c1", "docker update --memory 1k c1", "docker update --memory 32m nope",
    ],
    "rm": [
        f"docker run -d --name c1 busybox {KEEP}", "docker rm c1", "docker rm -f c1", "docker rm -f c1", "docker rm c1",
        "docker run --name d1 -v /anon busybox true", "docker volume ls -q | wc -l", "docker rm -v d1", "docker volume ls -q | wc -l",
        "docker run --rm --name e1 -v /anon busybox true", "docker volume ls -q | wc -l",
    ],
    # --- files
    "cp both ways": [
        "docker create --name c1 busybox true", "mkdir -p d1/sub; echo one > d1/one; echo two > 'd1/sub/t w+o%&'",
        "docker cp d1 c1:/in", "docker cp c1:/in - | tar t | sort", "docker cp c1:/in out; find out | sort; cat out/sub/*",
        "docker cp d1/one c1:/etc/", "docker cp c1:/etc/one again; cat again", "docker cp c1:/nope x", "docker cp d1/one c1:/no/such/ 2>&1 | tail -1",
        "docker cp 'c1:/in/sub/t w+o%&' -| tar xO", "tar c d1 | docker cp - c1:/tmp", "docker cp c1:/tmp/d1/one - | tar xO",
        "docker cp nope:/x y", "docker cp d1/one nope:/x", "docker cp -a c1:/in archived; ls archived",
        "rm -rf d1 out again archived",
    ],
    "cp with a running container": [
        f"docker run -d --name c1 busybox {KEEP}", "head -c 5000000 /dev/zero > big; docker cp big c1:/big",
        "docker exec c1 wc -c /big", "docker cp c1:/big back; cmp big back && echo same; rm -f big back",
    ],
    "diff": ["docker run --name c1 busybox sh -c 'echo x > /etc/new; rm /etc/group'", "docker diff c1", "docker diff nope"],
    "bind and volume mounts": [
        "mkdir -p src; echo from-host > src/f; docker run --rm -v $WORK/src:/m busybox sh -c 'cat /m/f; echo back > /m/g'; cat src/g",
        "docker run --rm --mount type=bind,source=$WORK/src,target=/m,readonly busybox sh -c 'cat /m/f; touch /m/x'",
        "docker run --rm -v $WORK/src/f:/file:ro busybox cat /file", "docker run --rm -v $WORK/src/new:/m busybox ls -d /m; ls -d src/new",
        "docker run --rm --mount type=bind,source=$WORK/absent,target=/m busybox true",
        "docker create --name c1 -v $WORK/src:/m:ro busybox; docker inspect -f '{{json .Mounts}} {{json .HostConfig.Binds}}' c1",
        "docker run --rm -v data:/d busybox sh -c 'echo kept > /d/f'", "docker run --rm --mount source=data,target=/d busybox cat /d/f",
        "docker run --name first -v shared:/s busybox touch /s/x", "docker run --rm --volumes-from first busybox ls /s",
        "docker run --rm --mount type=tmpfs,target=/t,tmpfs-size=1m busybox sh -c 'df -k /t | tail -1'", "rm -rf src",
    ],
    # --- images
    "build": [
        CONTEXT, "docker build -t me/app:1 ctx", "docker run --rm me/app:1", "docker build -q --build-arg WHO=you --label b=1 ctx",
        "docker build -t me/app:1 --no-cache --build-arg WHO=you ctx", "docker images",
        "docker image inspect -f '{{json .Config}} {{json .RepoTags}} {{.Os}} {{.Architecture}} {{.Size}}' me/app:1", "docker history me/app:1", "docker history --no-trunc --format '{{.CreatedBy}}' me/app:1",
        "docker run --rm me/app:1", "printf 'FROM me/app:1\\nRUN cat /made\\n' | docker build -t me/app:2 -",
        "tar c --numeric-owner -C ctx Dockerfile hello | docker build -t me/ctx -", "docker build -f ctx/Dockerfile -t plain ctx | tail -1", "rm -rf ctx",
    ],
    "build uses its cache": [CONTEXT, "docker build -t me/app ctx > /dev/null; docker build -t me/app ctx", "rm -rf ctx"],
    "build of many kinds": [
        "mkdir -p b; printf 'FROM busybox AS one\\nRUN echo 1 > /1\\nFROM busybox\\nCOPY --from=one /1 /2\\nRUN cat /2\\n' > b/Dockerfile",
        # An owner's own images are its cache; it takes a build or two until all stages have grown from one of them.
        "docker build b", "for i in 1 2; do docker build -q b > /dev/null; done", "docker build --target one -t me/one b", "docker build --network none b | tail -1",
        "docker build --memory 64m --ulimit nofile=99:99 --shm-size 4m --add-host x:10.0.0.1 --no-cache b | tail -1",
        "docker build --squash b", "docker build --cache-from me/one b | tail -1", "docker build --rm=false --force-rm b | tail -1",
        "rm -rf b",
    ],
    "build that fails": [
        "mkdir -p b; printf 'FROM busybox\\nRUN exit 5\\n' > b/Dockerfile; docker build b | grep -v ^Removing",
        "printf 'FROM busybox\\nNOPE x\\n' > b/Dockerfile; docker build b", "printf 'FROM busybox\\nCOPY nope /\\n' > b/Dockerfile; docker build b",
        "printf 'FROM absent/image:1\\n' > b/Dockerfile; docker build b 2>&1 | tail -1 | grep -c registry", "docker build -f nope b", "rm -rf b",
    ],
    "commit": [
        "docker run --name c1 busybox sh -c 'echo x > /x'", "docker commit -m why -a me -c 'CMD [\"cat\",\"/x\"]' c1 me/made:1",
        "docker run --rm me/made:1", "docker history me/made:1", "docker commit c1", "docker commit nope me/x", "docker commit c1 BAD",
        "docker image inspect -f '{{.Config.Cmd}} {{.Comment}} {{.Author}} {{len .Config.Labels}}' me/made:1",
    ],
    "tag and rmi": [
        "docker tag busybox a/b:1", "docker tag a/b:1 a/b:2", "docker tag nope a/b:3", "docker tag busybox BAD", "docker images a/b | sort",
        "docker rmi a/b:1", "docker rmi a/b:2", "docker rmi a/b:2", "docker rmi nope",
        "docker run --name c1 busybox sh -c 'echo > /x'; docker commit c1 a/c; docker run --name d1 a/c true; docker rmi a/c; docker rm d1; docker rmi a/c",
    ],
    "save and load": [
        "docker run --name c1 busybox sh -c 'echo > /x'; docker commit c1 a/c:1 >/dev/null; docker tag a/c:1 a/c:2",
        "docker save a/c:1 a/c:2 -o s.tar; tar xOf s.tar manifest.json | grep -o 'a/c:[12]'", "docker rm c1; docker rmi a/c:1 a/c:2",
        "docker load -i s.tar", "docker images a/c | sort", "docker rmi a/c:1 a/c:2; docker load < s.tar", "docker save nope", "docker save busybox | tar t | wc -l",
        "echo garbage | docker load", "docker save -o gone/x.tar busybox", "rm s.tar",
    ],
    "load of one's own image under a new name": [
        "docker tag busybox a/d:1; docker save a/d:1 > s.tar; docker rmi a/d:1; docker load -q < s.tar; docker run --rm a/d:1 echo up; rm s.tar",
    ],
    "import and export": [
        "docker run --name c1 busybox sh -c 'echo x > /x'", "docker export c1 | tar xO x", "docker export -o e.tar c1; tar tf e.tar | grep -c .",
        "docker import -c 'CMD [\"cat\",\"/x\"]' -m text e.tar a/i:1", "docker run --rm a/i:1", "docker history a/i:1",
        "cat e.tar | docker import -", "docker import e.tar BAD", "docker export nope", "docker import nope.tar", "rm e.tar",
    ],
    "images with filters": [
        "docker tag busybox a/x:1; docker tag busybox a/x:2; docker tag busybox b/y:1", "docker images | sort", "docker images a/x | sort", "docker images a/x:2",
        "docker images -q | sort -u | wc -l", "docker images --filter reference='a/*' | sort", "docker images --filter dangling=true",
        "docker images --filter label=nope", "docker images --filter before=busybox", "docker images --digests | sort", "docker images --no-trunc | sort",
        "docker images --filter since=nope", "docker images --format '{{.Repository}} {{.Tag}} {{.Size}}' | sort", "docker images nope",
    ],
    "push and pull with a registry": [
        "docker tag busybox $REGISTRY/team/app:1", "docker push $REGISTRY/team/app:1", "docker rmi $REGISTRY/team/app:1",
        "docker pull $REGISTRY/team/app:1", "docker images $REGISTRY/team/app", "docker rmi $REGISTRY/team/app:1",
        "docker run --rm $REGISTRY/team/app:1 echo pulled", "docker pull $REGISTRY/team/app:absent", "docker pull -q $REGISTRY/team/app:1",
        "docker push $REGISTRY/team/nope", "docker image inspect -f '{{.RepoDigests}}' $REGISTRY/team/app:1",
        "printf 'FROM %s/team/app:1\\nRUN echo more > /more\\n' $REGISTRY | docker build --pull -t $REGISTRY/team/app:2 - | grep -vE 'Pulling from|^Digest|^Status'",
        "docker push -q $REGISTRY/team/app:2",
    ],
    # --- networks and volumes
    "a network's life": [
        "docker network create --label l=1 n1", "docker network create n1", "docker network ls", "docker network ls --filter name=n1 --format '{{.Name}} {{.Driver}}'",
        "docker network ls --filter type=custom -q | wc -l", "docker network ls --filter label=l=1 --format '{{.Name}}'",
        f"docker run -d --name c1 --network n1 --network-alias web busybox {KEEP}", f"docker run -d --name d1 busybox {KEEP}",
        "docker run --rm --network n1 busybox sh -c 'ping -c 1 -w 30 web > /dev/null && ping -c 1 -w 30 c1 > /dev/null && echo found'",
        "docker network inspect n1", "docker network connect --alias db n1 d1", "docker exec c1 ping -c 1 -w 30 db | tail -2 | head -1",
        "docker network connect n1 d1", "docker network connect nope c1", "docker inspect -f '{{json .NetworkSettings.Networks}}' d1", "docker network disconnect n1 d1",
        "docker network disconnect n1 d1", "docker network disconnect -f n1 d1", "docker network rm n1", "docker rm -f c1 d1", "docker network rm n1", "docker network rm n1",
        "docker network inspect nope", "docker network create --subnet 10.77.0.0/24 --gateway 10.77.0.1 s1",
        "docker network inspect -f '{{json .IPAM}} {{.Internal}}' s1", "docker network create --internal i1", "docker network inspect -f '{{.Internal}}' i1",
        "docker run --rm --network s1 --ip 10.77.0.9 busybox sh -c 'ip -4 -o addr show eth0 | cut -d\" \" -f 7'", "docker network rm s1 i1",
    ],
    "the built-in networks": [
        "docker network inspect bridge | grep -v Subnet", "docker network ls --filter driver=null --format '{{.Name}}'", "docker network rm bridge",
        f"docker run -d --name c1 busybox {KEEP}", "docker network inspect -f '{{range .Containers}}{{.Name}}{{end}}' bridge",
        "docker network disconnect bridge c1", "docker network connect bridge c1", "docker run --rm --network none busybox ip -o link | wc -l",
    ],
    "a volume's life": [
        "docker volume create --label l=1 v1", "docker volume create v1", "docker volume ls", "docker volume ls -qf label=l=1", "docker volume ls -qf name=v1",
        "docker volume ls -qf dangling=true", "docker volume inspect v1", "docker run --name c1 -v v1:/v busybox touch /v/x", "docker volume rm v1", "docker rm c1",
        "docker volume rm v1", "docker volume rm v1", "docker volume inspect nope", "docker volume create | wc -c", "docker volume create --name BAD/name",
        "docker volume create --opt type=tmpfs --opt device=tmpfs --opt o=size=1m t1", "docker run --rm -v t1:/t busybox sh -c 'df -k /t | tail -1'",
        "docker volume rm -f nope",
    ],
    # --- cleaning and the system
    "prune of each kind": [
        "docker run --name c1 -v v1:/v -v /anon busybox true; docker network create n1; docker tag busybox a/keep:1",
        "printf 'FROM busybox\\nRUN echo 1\\n' | docker build -q -t a/p - > /dev/null; printf 'FROM busybox\\nRUN echo 2\\n' | docker build -q -t a/p - > /dev/null",
        "docker volume prune -f --filter label=x", "docker network prune -f --filter until=1h", "docker container prune -f --filter until=1h", "docker image prune -f --filter label=nope",
        "docker container prune -f", "docker network prune -f", "docker volume prune -f | wc -l", "docker image prune -f | grep -c Deleted", "docker builder prune -f",
        "docker images | sort", "docker ps -aq", "docker volume ls -q | wc -l", "docker network ls -q | wc -l",
        "docker container prune -f; docker network prune -f; docker volume prune -f; docker image prune -f",
    ],
    "system prune": ["docker run --name c1 busybox true; docker network create n1; docker volume create v1", "docker system prune -f", "docker system prune -f --volumes", "docker volume ls -q"],
    "system df": [
        f"docker run -d --name c1 -v v1:/v busybox sh -c 'echo 123 > /x; {KEEP}'; until docker exec c1 grep -q 123 /x; do :; done; docker run --name d1 busybox true; docker tag busybox a/b:1",
        "docker system df", "docker system df -v", "docker system df --format '{{.Type}} {{.TotalCount}}'",
    ],
    "info and version": [
        "docker version | grep -v ' Built:'", "docker version --format '{{.Server.APIVersion}} {{.Server.Version}} {{.Server.KernelVersion}}'",
        f"docker run -d --name c1 busybox {KEEP}; docker create --name d1 busybox",
        "docker info --format '{{.ServerVersion}} {{.Driver}} {{.OSType}} {{.Architecture}} {{.NCPU}} {{.MemTotal}} {{.OperatingSystem}} {{.KernelVersion}}'",
        "docker info --format '{{.Containers}} {{.ContainersRunning}} {{.ContainersStopped}} {{.ContainersPaused}} {{.Images}} {{.CgroupVersion}} {{.CgroupDriver}}'",
        "docker info --format '{{.Swarm.LocalNodeState}} {{.SecurityOptions}} {{.LoggingDriver}} {{.DefaultRuntime}}'", "docker info > /dev/null",
    ],
    # --- what is not there
    "absent objects of every kind": [
        f"docker {command}" for command in (
            "attach nope", "commit nope", "cp nope:/x -", "diff nope", "exec nope true", "export nope", "history nope", "inspect nope", "kill nope", "logs nope",
            "pause nope", "port nope", "rename nope nope2", "restart nope", "rm nope", "rm -f nope", "rmi nope", "start nope", "stats --no-stream nope", "stop nope",
            "tag nope x/y", "top nope", "unpause nope", "update -m 9m nope", "wait nope", "image inspect nope", "network inspect nope", "network rm nope",
            "volume inspect nope", "volume rm nope", "container inspect nope", "image rm nope", "network connect bridge nope", "network disconnect bridge nope",
            "plugin inspect nope", "save nope", "push nope/nope", "run --network nope busybox true", "run --volumes-from nope busybox true", "run --network container:nope busybox true",
            "run --link nope busybox true", "service ls", "node ls", "secret ls", "config ls", "stack ls", "service inspect nope", "secret inspect nope", "swarm leave", "plugin ls",
            "checkpoint ls nope", "create --name 'bad name' busybox", "inspect ''", "inspect a/b/c",
        )
    ],
}


@pytest.fixture(autouse=True)
def emptied(sides):
    yield
    both(sides, lambda side: side.engine.wipe())


@pytest.mark.parametrize("name", SCENARIOS)
def test_same_as_direct(sides, name):
    if any("$REGISTRY" in str(step) for step in SCENARIOS[name]):
        both(sides, lambda side: side.engine.registry)
    compare(sides, SCENARIOS[name])
