select id as ticket_id, customer_id, opened_at, closed_at, topic
from {{ source('support', 'tickets') }}
