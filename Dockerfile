# Ironpost in a container: two stages, so that pip, wheels and sources stay out of what runs.
#   docker build -t ironpost .
#   docker run --read-only -v ./config:/etc/ironpost:ro -v queue:/var/lib/ironpost -p 25:2525 ironpost
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.txt ./
RUN python -m venv /opt/ironpost \
 && /opt/ironpost/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes -r requirements.txt
COPY pyproject.toml README.md ./
COPY relay ./relay
RUN /opt/ironpost/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
 && /opt/ironpost/bin/python -m compileall -q /opt/ironpost/lib \
 && /opt/ironpost/bin/pip uninstall --yes --quiet pip

FROM python:3.13-slim
# The numeric id is fixed so that volumes can be prepared for it from outside. Nothing in the image may lend its owner's rights, or install more.
# A tmpfs at /run/ironpost would be root's with the mode that the folder has here; the queue's volume is the better place for the admin socket.
RUN python -m pip uninstall --yes --quiet --root-user-action=ignore pip \
 && rm -r "$(python -c 'import ensurepip; print(*ensurepip.__path__)')" \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
 && groupadd --gid 10025 ironpost \
 && useradd --uid 10025 --gid 10025 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin ironpost \
 && install -d -o ironpost -g ironpost -m 0700 /var/lib/ironpost \
 && install -d -m 1777 /run/ironpost \
 && install -d -m 0755 /etc/ironpost
COPY --from=build /opt/ironpost /opt/ironpost
ENV PATH=/opt/ironpost/bin:$PATH PYTHONDONTWRITEBYTECODE=1 RELAY_CONFIG=/etc/ironpost/connectors.yaml
USER 10025:10025
WORKDIR /var/lib/ironpost
VOLUME /var/lib/ironpost
EXPOSE 2525 2587 2465 9925
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=10s --retries=3 CMD ["relay", "health"]
ENTRYPOINT ["relay"]
CMD ["serve"]
