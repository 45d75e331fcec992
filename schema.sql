-- Applied by the owner where something of it is missing. Each statement may run any number of times.

-- Asked first: on Citus only the owner of the extension may create it again, also with "if not exists".
do $$
begin
  if not exists (select from pg_extension where extname = 'pg_trgm') then
    create extension if not exists pg_trgm;
  end if;
end $$;
-- The extension may be in another schema than the tables, which are in the first one of the search path.
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
  id uuid primary key,  -- UUIDv5 of apelido: this one key also keeps the apelido unique
  tx xid8 not null default pg_current_xact_id(), -- the transaction that stored the row: instances find new rows by it (search/feed.ts)
  nascimento date not null,
  apelido text not null,
  nome text not null,
  stack json,           -- json, not jsonb: it is returned exactly as it was sent
  busca text            -- the text that the index searches (search/text.ts); null: every instance has this person in memory
);
comment on table pessoas is 'version 1'; -- all that a server looks at, without a lock, when the schema is complete

create index if not exists pessoas_tx on pessoas (tx) where busca is null;
create index if not exists pessoas_busca on pessoas using gin (busca gin_trgm_ops)
  with (gin_pending_list_limit = 262144) where busca is not null;

-- New rows go to the pending list of the GIN index: merging thousands at once costs far less than indexing each alone. Only the
-- owner may merge. By this function an instance does it (search/pending-list.ts) before the list is full and a create has to.
-- On Citus each shard has an index, and a pending list, of its own.
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

-- The persons in the index by their terms of one and two characters, which have no trigram: up to 50 persons for each term. Rows
-- of the empty term say that the index has persons.
create table if not exists short_terms (
  term text collate "C",
  id uuid, -- of the person
  primary key (term, id)
);

-- On Citus only: both tables are distributed over the workers by id. A search asks every shard, so there are as many as workers.
do $$
declare
  workers int;
begin
  if exists (select from pg_extension where extname = 'citus') then
    if not exists (select from pg_dist_partition where logicalrelid = 'pessoas'::regclass) then
      select count(*) into workers from pg_dist_node where isactive and shouldhaveshards and noderole = 'primary';
      perform create_distributed_table('pessoas', 'id', shard_count := greatest(workers, 1));
      perform truncate_local_data_after_distributing_table('pessoas'); -- the copy that the coordinator keeps
      alter table pessoas alter busca set not null; -- no person is in memory: transactions of workers have no common order
    end if;
    if not exists (select from pg_dist_partition where logicalrelid = 'short_terms'::regclass) then
      perform create_distributed_table('short_terms', 'id', colocate_with := 'pessoas');
      perform truncate_local_data_after_distributing_table('short_terms');
    end if;
  end if;
end $$;
