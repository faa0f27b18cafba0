SELECT t0."run_id" AS "run_id", t0."metric" AS "metric", CAST(sum(t0."n") AS BIGINT) AS "n", min(t0."min") FILTER (WHERE NOT isnan(t0."min")) AS "low"
FROM "summaries" AS t0
GROUP BY t0."run_id", t0."metric"
