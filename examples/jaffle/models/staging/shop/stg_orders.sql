select
    id as order_id,
    customer_id,
    store,
    ordered_on,
    -- JAFFLE_BREAK=warn gives one order a status nobody knows: a test of severity warn notices.
    {% if env_var('JAFFLE_BREAK', '') == 'warn' -%}
    case when id = 3 then 'lost' else status end as status
    {%- else -%}
    status
    {%- endif %}
from {{ source('shop', 'orders') }}
