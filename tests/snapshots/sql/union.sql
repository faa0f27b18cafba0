SELECT t3."x" AS "x"
FROM ((SELECT t1."x" AS "x"
FROM (SELECT CAST($p0 AS DOUBLE) AS "x"
FROM "runs" AS t0 LIMIT 2) AS t1
WHERE (t1."x" > $p1)) UNION ALL (SELECT $p2 AS "x"
FROM "runs" AS t2
WHERE ($p2 > $p1))) AS t3 LIMIT 3
