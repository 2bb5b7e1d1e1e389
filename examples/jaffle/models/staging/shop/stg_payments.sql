select
    id as payment_id,
    order_id,
    method,
    -- JAFFLE_BREAK=test books one payment below zero: assert_payments_are_positive fails.
    {% if env_var('JAFFLE_BREAK', '') == 'test' -%}
    case when id = 7 then -amount_cents else amount_cents end as amount_cents
    {%- else -%}
    amount_cents
    {%- endif %}
from {{ source('shop', 'payments') }}
