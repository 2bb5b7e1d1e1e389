select
    c.customer_id,
    c.customer_name,
    c.city,
    count(o.order_id) as orders,
    max(o.ordered_on) as last_ordered_on
from {{ ref('stg_customers') }} as c
left join {{ ref('stg_orders') }} as o using (customer_id)
group by all
