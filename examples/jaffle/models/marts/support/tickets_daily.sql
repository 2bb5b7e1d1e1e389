select
    opened_at::date as opened_on,
    topic,
    count(*) as tickets,
    -- JAFFLE_BREAK=model asks for a column that is not there: the model errors.
    {% if env_var('JAFFLE_BREAK', '') == 'model' -%}
    avg(no_such_column) as hours_open
    {%- else -%}
    avg(date_diff('minute', opened_at, closed_at)) / 60 as hours_open
    {%- endif %}
from {{ ref('stg_tickets') }}
group by all
