-- A payment below zero would make every number after it wrong.
select payment_id, amount_cents
from {{ ref('stg_payments') }}
where amount_cents <= 0
