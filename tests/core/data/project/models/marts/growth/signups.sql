select signed_up_on, count(*) as signups from {{ ref('stg_customers') }} group by all
