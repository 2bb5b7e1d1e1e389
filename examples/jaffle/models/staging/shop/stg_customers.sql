select
    id as customer_id,
    first_name || ' ' || last_name as customer_name,
    city,
    signed_up_on
from {{ source('shop', 'customers') }}
