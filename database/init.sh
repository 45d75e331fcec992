#!/bin/sh
# Runs as user postgres on an empty data volume. To apply a changed schema to an existing volume:
#   docker compose exec db sh /docker-entrypoint-initdb.d/init.sh
set -eu

# Only the superuser changes the schema. Until the end, only postgres may use the socket (POSTGRES_INITDB_ARGS), so no
# instance sees an unfinished database.
psql --set ON_ERROR_STOP=1 --username postgres --dbname postgres --quiet <<'SQL'
select 'create role pessoas login' where not exists (select from pg_roles where rolname = 'pessoas') \gexec
select 'create database pessoas' where not exists (select from pg_database where datname = 'pessoas') \gexec
alter database pessoas owner to postgres;
revoke all on database pessoas from public;
grant connect on database pessoas to pessoas;
alter system set unix_socket_permissions = '0777';
\connect pessoas
set client_min_messages = warning; -- no notice for each object that exists already
reassign owned by pessoas to postgres;
\i /schema.sql
grant select, insert on all tables in schema public to pessoas;
SQL

# The kernel tells Postgres the user of a socket's client. There is no line for TCP.
cat >"$PGDATA/pg_hba.conf" <<'HBA'
local all     postgres peer
local pessoas pessoas  peer map=instances
HBA
echo 'instances www-data pessoas' >"$PGDATA/pg_ident.conf"
