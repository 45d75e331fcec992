#!/bin/sh
# Runs as user postgres when the volume of the data is empty. By hand it brings an older volume up to date:
#   docker compose exec db sh /docker-entrypoint-initdb.d/init.sh
set -eu

# Everything belongs to the superuser, who alone changes the schema. The application reads persons and adds them, and
# can neither change nor remove one, nor make anything else. Until this ends only user postgres may use the socket
# (POSTGRES_INITDB_ARGS): to the instances a half-made database is one that is not there yet.
psql --set ON_ERROR_STOP=1 --username postgres --dbname postgres --quiet <<'SQL'
select 'create role pessoas login' where not exists (select from pg_roles where rolname = 'pessoas') \gexec
select 'create database pessoas' where not exists (select from pg_database where datname = 'pessoas') \gexec
alter database pessoas owner to postgres;
revoke all on database pessoas from public;
grant connect on database pessoas to pessoas;
alter system set unix_socket_permissions = '0777';
\connect pessoas
set client_min_messages = warning; -- not what is there already
reassign owned by pessoas to postgres;
select to_regclass('pessoas') is not null
  and obj_description(to_regclass('pessoas'), 'pg_class') is distinct from 'version 3' as earlier \gset
\if :earlier
  alter database pessoas owner to pessoas;
  alter table pessoas owner to pessoas;
  drop table if exists trechos, curtos;
  drop function if exists pessoas_mesclar;
  \echo 'These persons are stored as an earlier version did. Start the instances, which convert them, and run this again.'
\else
  \i /schema.sql
  grant select, insert on all tables in schema public to pessoas;
\endif
SQL

# No passwords: the kernel tells Postgres which user has opened a socket. There is no line for TCP.
cat >"$PGDATA/pg_hba.conf" <<'HBA'
local all     postgres peer
local pessoas pessoas  peer map=instances
HBA
echo 'instances www-data pessoas' >"$PGDATA/pg_ident.conf"
