select
    o.order_id,
    o.customer_id,
    o.store,
    o.ordered_on,
    o.status,
    coalesce(sum(p.amount_cents), 0) as amount_cents
from {{ ref('stg_orders') }} as o
left join {{ ref('stg_payments') }} as p using (order_id)
group by all
