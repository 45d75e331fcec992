FROM oven/bun:1.4.5-slim AS dependencies
WORKDIR /app
COPY package.json bun.lock ./
COPY patches patches
# Optional is the embedded Postgres: here the database is a container of its own.
RUN bun install --frozen-lockfile --production --omit=optional

# What tests/docker-compose.yml runs. The embedded Postgres is here only to be tested itself.
FROM oven/bun:1.4.5-slim AS tests
WORKDIR /app
COPY package.json bun.lock ./
COPY patches patches
RUN bun install --frozen-lockfile
COPY . .
USER bun
CMD ["bun", "test"]

# One file instead of a tree of modules: ready in 41 ms instead of 78, and 4 MB less of memory for each instance.
# A --compile'd executable is ready in 23 ms, but 36 MB of it are private to each instance.
FROM dependencies AS build
COPY . .
RUN bun build server.ts --target=bun --minify --sourcemap=linked --outdir=dist

FROM oven/bun:1.4.5-slim
WORKDIR /app
# www-data is the one ordinary user that Debian's base gives the same name and number in every image: it is what
# Postgres, in a container of its own, recognises without a password (see database/init.sh).
# A volume mounted on this folder takes over its owner.
RUN install -d -o www-data -g www-data /run/api
COPY --from=build /app/dist ./
USER www-data
# Bun's allocator gives free memory back whenever there is nothing to do, ten times a second also from within pages in use,
# and gets it again with the next request: a fifth of an instance's CPU under the contest's load. Every 10 s is enough.
ENV MIMALLOC_PURGE_HOLES_MIN_INTERVAL=10000 MIMALLOC_PURGE_DELAY=1000
# What the last of JavaScriptCore's compilers gains under these loads is within noise; without it, 2 to 5 MB less each.
ENV BUN_JSC_useFTLJIT=0
CMD ["bun", "server.js"]
