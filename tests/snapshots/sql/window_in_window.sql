SELECT t1."experiment" AS "experiment", t1."run_id" AS "run_id", t1."metric" AS "metric", t1."step" AS "step", t1."ts" AS "ts", t1."value" AS "value", t1."attempt" AS "attempt", t1."a" AS "a", lag(t1."a", 1) OVER (PARTITION BY t1."run_id" ORDER BY t1."step" NULLS LAST) AS "b"
FROM (SELECT t0."experiment" AS "experiment", t0."run_id" AS "run_id", t0."metric" AS "metric", t0."step" AS "step", t0."ts" AS "ts", t0."value" AS "value", t0."attempt" AS "attempt", lag(t0."value", 1) OVER (PARTITION BY t0."run_id" ORDER BY t0."step" NULLS LAST) AS "a"
FROM "metrics" AS t0
WHERE (t0."metric" = $p0)) AS t1
ORDER BY t1."run_id" NULLS LAST, t1."step" NULLS LAST LIMIT 2
