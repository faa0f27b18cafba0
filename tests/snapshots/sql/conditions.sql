SELECT t0."name" AS "name", t1."~param.lr.number" AS "params.lr"
FROM "runs" AS t0 LEFT JOIN (SELECT run_id, any_value(number) AS "~param.lr.number" FROM params WHERE key IN ($p0) GROUP BY run_id) AS t1 ON t1.run_id = t0."run_id" LEFT JOIN (SELECT run_id, any_value(value) AS "~tag.stage" FROM tags WHERE key IN ($p2) GROUP BY run_id) AS t2 ON t2.run_id = t0."run_id"
WHERE (t1."~param.lr.number" < $p1) AND (t2."~tag.stage" = $p3)
