-- Applied by the owner where it is missing or of an earlier version: each statement may run any number of times.

create extension if not exists pg_trgm;
-- It may be in another schema than the tables, which are in the first one of the search path.
select set_config('search_path', concat_ws(', ', current_setting('search_path'), quote_ident(nspname)), false)
  from pg_extension join pg_namespace on pg_namespace.oid = extnamespace where extname = 'pg_trgm';

do $$
begin
  if to_regclass('pessoas') is not null
    and obj_description(to_regclass('pessoas'), 'pg_class') is distinct from 'version 3' then
    raise exception 'the table pessoas is of another version: a server whose role owns it converts it at its start';
  end if;
end $$;

create table if not exists pessoas (
  id uuid primary key,  -- UUIDv5 of apelido: this one key also keeps the apelido unique
  tx xid8 not null default pg_current_xact_id(), -- the transaction that stored it, by which instances find new persons
  nascimento date not null,
  apelido text not null,
  nome text not null,
  stack json,           -- json, not jsonb: it is given back exactly as it was sent
  busca text            -- what the index searches (search/text.ts); null: each instance has this person in memory
);
comment on table pessoas is 'version 3'; -- a server looks at this alone, and takes no lock, where it finds its own

create index if not exists pessoas_tx on pessoas (tx) where busca is null;
create index if not exists pessoas_busca on pessoas using gin (busca gin_trgm_ops)
  with (gin_pending_list_limit = 16384) where busca is not null;

-- New rows wait in a list before they are merged into that index, for thousands at once take far less than each alone.
-- Only its owner may do it; this lets an instance begin it (search/merges.ts) long before the list is full and a create has to.
-- With Citus the lists are those of the workers, which do it by themselves, hence the smaller limit above, and a function
-- would be sent to workers that do not have this index.
do $$
begin
  if not exists (select from pg_extension where extname = 'citus') then
    alter index pessoas_busca set (gin_pending_list_limit = 262144);
    execute format($f$
      create or replace function pessoas_mesclar() returns bigint language sql security definer
        set search_path = %I, pg_temp as 'select gin_clean_pending_list(''pessoas_busca'')' $f$, current_schema());
  end if;
end $$;

-- Persons in the index by their terms of one and two characters, which have no trigram: up to 50 persons for each term. The empty
-- term tells that there are persons in the index.
create table if not exists curtos (
  termo text collate "C",
  id uuid,              -- of the person
  primary key (termo, id)
);

-- Citus alone: the persons are parted over its workers by id, once; those who are there already move, too. A search
-- asks every shard, so there are no more than workers. Elsewhere nothing within is planned, for it would not exist.
do $$
declare
  workers int;
begin
  if exists (select from pg_extension where extname = 'citus') then
    if not exists (select from pg_dist_partition where logicalrelid = 'pessoas'::regclass) then
      select count(*) into workers from pg_dist_node where isactive and shouldhaveshards and noderole = 'primary';
      perform create_distributed_table('pessoas', 'id', shard_count := greatest(workers, 1));
      perform create_distributed_table('curtos', 'id', colocate_with := 'pessoas');
    end if;
  end if;
end $$;
