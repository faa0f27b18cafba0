SELECT t3."lr" AS "lr", t0."step" AS "step", t0."value" AS "value"
FROM "metrics" AS t0 JOIN (SELECT t1."run_id" AS "run_id", t2."~param.lr.number" AS "lr"
FROM "runs" AS t1 LEFT JOIN (SELECT run_id, any_value(number) AS "~param.lr.number" FROM params WHERE key IN ($p1) GROUP BY run_id) AS t2 ON t2.run_id = t1."run_id") AS t3 ON t0."run_id" = t3."run_id"
WHERE (t0."metric" = $p0)
