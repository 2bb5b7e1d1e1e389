select ordered_on, store, sum(amount_cents) as revenue_cents, count(*) as orders
from {{ ref('orders') }}
where status <> 'returned'
group by all
