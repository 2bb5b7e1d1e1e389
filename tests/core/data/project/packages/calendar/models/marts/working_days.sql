{{ config(tags=['calendar', 'daily']) }}
select range::date as day from range(date '2026-06-01', date '2026-08-01', interval 1 day)
where range::date not in (select day from {{ ref('holidays') }})
