select customer_id, 1 * orders as value from {{ ref('customers') }}
