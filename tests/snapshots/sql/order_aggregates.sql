SELECT t0."metric" AS "metric", arg_min_null(t0."step", ROW(t0."value", t0."step")) FILTER (WHERE t0."value" IS NOT NULL AND NOT isnan(t0."value")) AS "at", quantile_cont(t0."value", 0.5) FILTER (WHERE NOT isnan(t0."value")) AS "q"
FROM "metrics" AS t0
GROUP BY t0."metric"
