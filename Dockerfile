# The images of sockguard (the last stage) and of its scaler's program (--target scaler). README.md says how to build them.
#
# BuildKit and the classic builder make them alike. The programs are for TARGETARCH, amd64 or arm64, and made on the
# machine that builds: where the two differ they are cross-compiled. RUST_IMAGE is what makes them; when it is named with
# its digest, the same sources and the same arguments make the same programs again.
ARG RUST_IMAGE=rust:1.95-slim-bookworm
# BuildKit sets it.
ARG BUILDPLATFORM

FROM --platform=${BUILDPLATFORM:-linux/amd64} ${RUST_IMAGE} AS source
# BuildKit sets it by --platform; without it, the programs are for the machine that builds.
ARG TARGETARCH
RUN host=$(rustc --print host-tuple) && \
    case "$TARGETARCH" in \
        "") target=$host ;; \
        amd64) target=x86_64-unknown-linux-gnu ;; \
        arm64) target=aarch64-unknown-linux-gnu ;; \
        *) echo "TARGETARCH: expected amd64 or arm64, not $TARGETARCH" >&2; exit 1 ;; \
    esac && \
    echo "$target" >/target && \
    if [ "$target" != "$host" ]; then \
        rustup target add "$target" && \
        apt-get -qq update && \
        apt-get -qq -y --no-install-recommends install \
            "libc6-dev-$TARGETARCH-cross" "gcc-$(echo "$target" | sed 's/-unknown//; s/_/-/')"; \
    fi
ENV CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
WORKDIR /build
COPY . .

FROM source AS scaler-build
# The time of the files in the image, in seconds since 1970.
ARG SOURCE_DATE_EPOCH=0
RUN TARGET=$(cat /target) .ci/build sockguard-scaler && \
    mkdir /out && cp target/release/sockguard-scaler /out/bootstrap && chmod 0755 /out/bootstrap && \
    touch -d "@$SOURCE_DATE_EPOCH" /out/bootstrap

# The program by the name that Lambda wants in the zip archive.
FROM scratch AS scaler
COPY --from=scaler-build /out/bootstrap /bootstrap

FROM source AS sockguard-build
ARG SOURCE_DATE_EPOCH=0
# The commit, which --version tells.
ARG REVISION=unknown
RUN SOCKGUARD_COMMIT=$REVISION TARGET=$(cat /target) .ci/build sockguard && \
    mkdir -p /out/etc/sockguard /out/run /own/sockguard && \
    cp target/release/sockguard /out/ && cp config/ecs-daemon.toml /out/etc/sockguard/ && \
    chmod -R u=rwX,go=rX /out /own && \
    find /out /own -exec touch -d "@$SOURCE_DATE_EPOCH" {} +

FROM scratch
COPY --from=sockguard-build /out/ /
# So that a new volume that is mounted there is the user's, too. The directory above is root's: it has to be.
COPY --from=sockguard-build --chown=65532:65532 /own/ /run/

ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED
LABEL org.opencontainers.image.title="sockguard" \
      org.opencontainers.image.description="Access control for the Docker Engine socket" \
      org.opencontainers.image.source="https://github.com/buildkite/sockguard" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"

# Nobody's number. The engine's socket is root's and its group's: give the group, or run it as user 0.
USER 65532:65532
ENTRYPOINT ["/sockguard"]
# The guarded socket is at one place, whether flags say so or the configuration of an ECS host does.
CMD ["--filename", "/run/sockguard/docker.sock"]
HEALTHCHECK --interval=5s --timeout=6s --start-period=10s --retries=3 \
    CMD ["/sockguard", "health", "--filename", "/run/sockguard/docker.sock"]
