#!/bin/sh
# Runs once, as user postgres, when the volume of the data is empty.
set -eu

# The application owns its database and is no superuser. Until this ends only user postgres may use the socket
# (POSTGRES_INITDB_ARGS): to the instances a half-made database is one that is not there yet.
psql --set ON_ERROR_STOP=1 --username postgres --quiet <<'SQL'
create role pessoas login;
create database pessoas owner pessoas;
alter system set unix_socket_permissions = '0777';
SQL

# No passwords: the kernel tells Postgres which user has opened a socket. There is no line for TCP.
cat >"$PGDATA/pg_hba.conf" <<'HBA'
local all     postgres peer
local pessoas pessoas  peer map=instances
HBA
echo 'instances www-data pessoas' >"$PGDATA/pg_ident.conf"
