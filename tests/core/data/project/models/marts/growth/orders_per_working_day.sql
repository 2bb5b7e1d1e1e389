select o.* from {{ ref('orders') }} as o join {{ ref('working_days') }} as w on w.day = o.ordered_on
