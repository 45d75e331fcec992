-- Applied by the owner. Each statement may run any number of times.

-- On Citus only the extension's owner may run "create extension if not exists" again.
do $$
begin
  if not exists (select from pg_extension where extname = 'pg_trgm') then
    create extension if not exists pg_trgm;
  end if;
end $$;
-- pg_trgm may be in another schema than the tables.
select set_config('search_path', concat_ws(', ', current_setting('search_path'), quote_ident(nspname)), false)
  from pg_extension join pg_namespace on pg_namespace.oid = extnamespace where extname = 'pg_trgm';

do $$
begin
  if to_regclass('pessoas') is not null
    and obj_description(to_regclass('pessoas'), 'pg_class') is distinct from 'version 1' then
    raise exception 'the table pessoas does not have schema version 1: name another database or schema';
  end if;
end $$;

create table if not exists pessoas (
  id uuid primary key,  -- UUIDv5 of apelido: one key keeps both unique
  tx xid8 not null default pg_current_xact_id(), -- the row's transaction: instances find new rows by it (search/feed.ts)
  nascimento date not null,
  apelido text not null,
  nome text not null,
  stack json,           -- json, not jsonb: returned exactly as it was sent
  busca text            -- for the GIN index (search/index-text.ts); null: every instance has this person in memory
);
comment on table pessoas is 'version 1'; -- the version's home: the server compares it (database/migration.ts)

create index if not exists pessoas_tx on pessoas (tx) where busca is null;
create index if not exists pessoas_busca on pessoas using gin (busca gin_trgm_ops)
  with (gin_pending_list_limit = 262144) where busca is not null;

-- Only the owner may merge (search/pending-list.ts). On Citus each shard has its own list.
do $$
begin
  execute format($f$
    create or replace function merge_pending_list() returns bigint language plpgsql security definer set search_path = %I, pg_temp as $b$
      declare
        failure text;
        pages bigint;
      begin
        if not exists (select from pg_extension where extname = 'citus') then
          return gin_clean_pending_list('pessoas_busca');
        end if;
        select min(result) filter (where not success), sum(case when success then result::bigint end) into failure, pages
          from run_command_on_shards('pessoas', $c$
            select gin_clean_pending_list(pg_class.oid) from pg_index join pg_class on pg_class.oid = indexrelid
              where indrelid = '%%s'::regclass and relam = (select oid from pg_am where amname = 'gin') $c$);
        if failure is not null then
          raise exception '%%', failure;
        end if;
        return pages;
      end $b$ $f$, current_schema());
end $$;

-- Up to 50 persons of the index for each term of one or two characters, which has no trigram. The empty term shows that
-- the index has persons.
create table if not exists short_terms (
  term text collate "C",
  id uuid,
  primary key (term, id)
);

-- A search asks every shard, so there are as many shards as workers.
do $$
declare
  workers int;
begin
  if exists (select from pg_extension where extname = 'citus') then
    if not exists (select from pg_dist_partition where logicalrelid = 'pessoas'::regclass) then
      select count(*) into workers from pg_dist_node where isactive and shouldhaveshards and noderole = 'primary';
      perform create_distributed_table('pessoas', 'id', shard_count := greatest(workers, 1));
      perform truncate_local_data_after_distributing_table('pessoas'); -- the coordinator's own copy
      alter table pessoas alter busca set not null; -- no person is in memory: transactions of different workers have no common order
    end if;
    if not exists (select from pg_dist_partition where logicalrelid = 'short_terms'::regclass) then
      perform create_distributed_table('short_terms', 'id', colocate_with := 'pessoas');
      perform truncate_local_data_after_distributing_table('short_terms');
    end if;
  end if;
end $$;
