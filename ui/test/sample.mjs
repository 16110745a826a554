// What a server of a small company might hold; for screenshots.

const KEYS = {
  "app/config/database": '{"host":"db-1.internal","port":5432,"pool":{"min":4,"max":32},"replicas":["db-2.internal","db-3.internal"],"tls":true,"timeout_ms":2500}',
  "app/config/feature-flags": '{"checkout.v2":true,"search.semantic":false,"rollout":0.25}',
  "app/config/greeting": "Salve, munde",
  "app/config/logo.png": Uint8Array.from([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10, 0, 0, 0, 13, 0x49, 0x48, 0x44, 0x52, 0, 0, 0, 16]),
  "app/config/motd": "Maintenance on Saturday 02:00 UTC.\nExpect short leader changes.",
  "app/config/rate-limit": "1200",
  "app/deploy/api/image": "registry.internal/api:12",
  "app/deploy/worker/image": "registry.internal/worker:7",
  "jobs/last-run": "2026-11-21T18:00:00Z",
  "regions/eu/primary": "frankfurt",
};

const SESSIONS = {
  "nightly-backup": { keys: { "jobs/backup/leader": "host b, pid 4711" }, TTL: "600s", LockDelay: "15s" },
  "mailer-1": { keys: { "app/mailer/leader": "mailer-1", "jobs/queue/mail": "1" }, TTL: "60s" },
  "mailer-2": { keys: {}, TTL: "60s", Behavior: "delete" },
  migrations: { keys: { "app/config/migration": "schema 42" } },
};

const SERVICES = [
  { ID: "web-1", Name: "web", Tags: ["v12", "public"], Port: 8080, Check: { TTL: "600s", Status: "passing", Name: "HTTP /healthz" } },
  { ID: "web-2", Name: "web", Tags: ["v12", "public"], Port: 8081, Check: { TTL: "600s", Status: "warning", Name: "HTTP /healthz", Notes: "slow since the last release" } },
  { ID: "db-1", Name: "postgres", Tags: ["primary"], Port: 5432, Check: { CheckID: "pg", TTL: "600s", Status: "passing", Name: "Replication lag" } },
];

export async function fill(server) {
  for (const [key, value] of Object.entries(KEYS)) await server.put(key, value);
  await server.put("app/config/token", "s3cr3t", "?flags=42");
  for (const [Name, { keys, ...fields }] of Object.entries(SESSIONS)) {
    const id = await server.session({ Name, ...fields });
    for (const [key, value] of Object.entries(keys)) await server.put(key, value, `?acquire=${id}`);
  }
  for (const service of SERVICES) await server.call("PUT", "/v1/agent/service/register", JSON.stringify(service));
  const lag = { Status: "critical", Output: "replica db-2 is 48 s behind\nlimit: 10 s" };
  await server.call("PUT", "/v1/agent/check/update/pg", JSON.stringify(lag));
  await server.call("POST", "/mod/v2/lock/deploys?ttl=600&value=alice");
  // These wait until the server ends.
  for (const name of ["bob", "carol"]) server.call("POST", `/mod/v2/lock/deploys?ttl=600&value=${name}`).catch(() => {});
}
