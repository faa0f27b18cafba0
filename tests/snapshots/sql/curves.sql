SELECT t0."experiment" AS "experiment", t0."run_id" AS "run_id", t0."metric" AS "metric", t0."step" AS "step", t0."ts" AS "ts", t0."value" AS "value"
FROM "metrics" AS t0
WHERE (t0."metric" IN ($p0)) AND EXISTS (SELECT 1 FROM (SELECT t1."run_id" AS "run_id"
FROM "runs" AS t1 LEFT JOIN (SELECT run_id, CAST(any_value(number) AS BIGINT) AS "~param.seed.int" FROM params WHERE key IN ($p1) GROUP BY run_id) AS t2 ON t2.run_id = t1."run_id"
WHERE (t2."~param.seed.int" = $p2)) AS t3 WHERE t0."run_id" = t3."run_id")
ORDER BY t0."run_id" NULLS LAST, t0."metric" NULLS LAST, t0."step" NULLS LAST
