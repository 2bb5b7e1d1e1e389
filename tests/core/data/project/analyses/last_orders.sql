select * from {{ ref('orders') }} order by 1
