SELECT t2."experiment" AS "experiment", t2."run_id" AS "run_id", t2."metric" AS "metric", t2."step" AS "step", t2."ts" AS "ts", t2."value" AS "value", t2."attempt" AS "attempt"
FROM (SELECT t1."experiment" AS "experiment", t1."run_id" AS "run_id", t1."metric" AS "metric", t1."step" AS "step", t1."ts" AS "ts", t1."value" AS "value", t1."attempt" AS "attempt", md5(concat_ws('|', '7', coalesce(CAST(t1."experiment" AS VARCHAR), ''), coalesce(CAST(t1."run_id" AS VARCHAR), ''), coalesce(CAST(t1."metric" AS VARCHAR), ''), coalesce(CAST(t1."step" AS VARCHAR), ''))) AS "~order0"
FROM (SELECT t0."experiment" AS "experiment", t0."run_id" AS "run_id", t0."metric" AS "metric", t0."step" AS "step", t0."ts" AS "ts", t0."value" AS "value", t0."attempt" AS "attempt"
FROM "metrics" AS t0) AS t1
ORDER BY md5(concat_ws('|', '7', coalesce(CAST(t1."experiment" AS VARCHAR), ''), coalesce(CAST(t1."run_id" AS VARCHAR), ''), coalesce(CAST(t1."metric" AS VARCHAR), ''), coalesce(CAST(t1."step" AS VARCHAR), ''))) NULLS LAST LIMIT 3) AS t2
ORDER BY t2."~order0" NULLS LAST
