# SeaweedFS as an unprivileged user, whose volume is writable for it. The version is the one that the tests run.
FROM chrislusf/seaweedfs:4.48
USER root
RUN mkdir -p /store && chown 1000:1000 /store
USER 1000:1000
