SELECT t1."experiment" AS "experiment"
FROM (SELECT DISTINCT t0."experiment" AS "experiment"
FROM "runs" AS t0) AS t1
ORDER BY upper(t1."experiment") NULLS LAST
