select customer_id, 2 * orders as value from {{ ref('customers') }}
