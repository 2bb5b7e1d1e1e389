select
    s.store,
    s.city,
    date_trunc('month', r.ordered_on) as month,
    sum(r.revenue_cents) / any_value(s.monthly_target_cents) as reached
from {{ ref('stores') }} as s
join {{ ref('revenue_daily') }} as r using (store)
where date_trunc('month', r.ordered_on) = date '2026-06-01'
group by all
