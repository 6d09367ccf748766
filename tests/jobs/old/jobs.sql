PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE jobs (
	id VARCHAR(64) NOT NULL, 
	tenant VARCHAR(63) NOT NULL, 
	name VARCHAR(63) NOT NULL, 
	idempotency_key VARCHAR(200), 
	order_sha256 VARCHAR(64) NOT NULL, 
	"order" TEXT NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	code VARCHAR(64), 
	reason TEXT, 
	hint TEXT, 
	submitted_s DOUBLE NOT NULL, 
	started_s DOUBLE, 
	finished_s DOUBLE, 
	queue_until_s DOUBLE NOT NULL, 
	priority INTEGER NOT NULL, 
	worker VARCHAR(200), 
	attempt INTEGER DEFAULT '0' NOT NULL, 
	deaths INTEGER DEFAULT '0' NOT NULL, 
	progress TEXT DEFAULT '{}' NOT NULL, 
	adapter_sha256 VARCHAR(64), 
	purge_s DOUBLE, 
	PRIMARY KEY (id), 
	UNIQUE (tenant, idempotency_key)
);
INSERT INTO jobs VALUES('68b7ac692addf1f1d31d51bd','local','finished',NULL,'989eb173643a93ffae40d6c0fbe86d7ecbec9ba70957658f69351c7ad02a8d2d','{"changes": {"alpha": 4, "checkpoint_every": 3, "class_images": 2, "instance_rows": 2, "prior_rows": 1, "rank": 2, "steps": 6, "variants": 1}, "class_noun": "dog", "invocation": null, "keep_strangers": false, "name": "finished", "notices": [{"kind": "webhook", "target": "https://example.com/hook", "when": "always"}], "photos": "local/uploads/finished/5eca67b977da538986bdba3126ccc7d55bb06bf6e55725aa815600f6c899ebe4", "queue_limit_s": 21600, "recipe": "fast", "replace": false, "seed": 0, "tenant": "local", "time_limit_s": 3600}','succeeded',NULL,NULL,NULL,1795915569.0070061683,1795915581.8979845046,1795915585.0100173949,1795937169.0070061683,1,'w-0',1,0,'{"kind": "stage", "stage": "publish"}','cf33779bf7885878fab915e0d58e5eb50b2a766ad0bf8922330ee77a8df174ae',1798507585.010017395);
INSERT INTO jobs VALUES('cec7230d575702701a470b62','local','broken',NULL,'78d4dabd614822c1823607db4b092be95fca1e5b2f82bec8fa3a9f130130865e','{"changes": {"alpha": 4, "checkpoint_every": 3, "class_images": 2, "instance_rows": 2, "prior_rows": 1, "rank": 2, "steps": 6, "variants": 1}, "class_noun": "dog", "invocation": null, "keep_strangers": false, "name": "broken", "notices": [], "photos": "local/uploads/broken/cc115de73027022155366b626eb7f156687c5d53d827dc0ad47a4638014ed61b", "queue_limit_s": 21600, "recipe": "fast", "replace": false, "seed": 0, "tenant": "local", "time_limit_s": 3600}','failed','PhotosRefused','expected photographs in the archive, got none','send ten to twelve photographs',1795915569.0309853553,1795915581.9339931011,1795915582.4600009918,1795937169.0309853553,2,'w-0',1,0,'{"kind": "stage", "stage": "check"}',NULL,1798507582.4600009917);
INSERT INTO jobs VALUES('53c293c57720fe61e7a0f456','local','running',NULL,'6ba98ce61c93fdc5f0ff4873777718e8219647a16baba02f215e62640fb53631','{"changes": {"alpha": 4, "checkpoint_every": 5, "class_images": 2, "instance_rows": 2, "prior_rows": 1, "rank": 2, "steps": 40, "variants": 1}, "class_noun": "dog", "invocation": null, "keep_strangers": false, "name": "running", "notices": [], "photos": "local/uploads/running/5eca67b977da538986bdba3126ccc7d55bb06bf6e55725aa815600f6c899ebe4", "queue_limit_s": 21600, "recipe": "fast", "replace": false, "seed": 0, "tenant": "local", "time_limit_s": 3600}','running',NULL,NULL,NULL,1795915585.0619986057,1795915585.2739870548,NULL,1795937185.0619986057,1,'w-0',1,0,'{"kind": "joined", "step": 0, "steps": 40, "together": 1}',NULL,NULL);
INSERT INTO jobs VALUES('26b57d9f68386a6def1f2f83','local','waiting',NULL,'c56235d968c941ad7e4a1ff9cb38421f4a8909310aa79ecddd08f8abffdf4b41','{"changes": {"alpha": 4, "checkpoint_every": 3, "class_images": 2, "instance_rows": 2, "prior_rows": 1, "rank": 2, "steps": 6, "variants": 1}, "class_noun": "dog", "invocation": null, "keep_strangers": false, "name": "waiting", "notices": [], "photos": "local/uploads/waiting/5eca67b977da538986bdba3126ccc7d55bb06bf6e55725aa815600f6c899ebe4", "queue_limit_s": 21600, "recipe": "fast", "replace": false, "seed": 0, "tenant": "local", "time_limit_s": 3600}','queued',NULL,NULL,NULL,1795915586.1659958362,NULL,NULL,1795937186.1659958362,2,NULL,0,0,'{}',NULL,NULL);
INSERT INTO jobs VALUES('b9ec0ceb16a2c21280c9e03c','local','unwanted',NULL,'c7dd0d50fcfef3a0d9431319b030a85f3a36ca6fab3be5ac1b0057f9afa13e4e','{"changes": {"alpha": 4, "checkpoint_every": 3, "class_images": 2, "instance_rows": 2, "prior_rows": 1, "rank": 2, "steps": 6, "variants": 1}, "class_noun": "dog", "invocation": null, "keep_strangers": false, "name": "unwanted", "notices": [], "photos": "local/uploads/unwanted/5eca67b977da538986bdba3126ccc7d55bb06bf6e55725aa815600f6c899ebe4", "queue_limit_s": 21600, "recipe": "fast", "replace": false, "seed": 0, "tenant": "local", "time_limit_s": 3600}','cancelled','Cancelled','cancelled by its owner','',1795915586.1999928951,NULL,1795915586.2180173397,1795937186.1999928951,3,NULL,0,0,'{}',NULL,1795915616.2180173396);
CREATE TABLE job_events (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	job VARCHAR(64) NOT NULL, 
	at_s DOUBLE NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	facts TEXT NOT NULL
);
INSERT INTO job_events VALUES(1,'68b7ac692addf1f1d31d51bd',1795915569.0070061683,'state','{"state": "queued"}');
INSERT INTO job_events VALUES(2,'cec7230d575702701a470b62',1795915569.0309853553,'state','{"state": "queued"}');
INSERT INTO job_events VALUES(3,'68b7ac692addf1f1d31d51bd',1795915581.8999960422,'state','{"state": "running", "worker": "w-0"}');
INSERT INTO job_events VALUES(4,'68b7ac692addf1f1d31d51bd',1795915581.9080023765,'stage','{"stage": "fetch"}');
INSERT INTO job_events VALUES(5,'cec7230d575702701a470b62',1795915581.934998989,'state','{"state": "running", "worker": "w-0"}');
INSERT INTO job_events VALUES(6,'cec7230d575702701a470b62',1795915581.9389820098,'stage','{"stage": "fetch"}');
INSERT INTO job_events VALUES(7,'68b7ac692addf1f1d31d51bd',1795915581.9700016975,'stage','{"stage": "check"}');
INSERT INTO job_events VALUES(8,'cec7230d575702701a470b62',1795915582.0019869804,'stage','{"stage": "check"}');
INSERT INTO job_events VALUES(9,'68b7ac692addf1f1d31d51bd',1795915582.2460010051,'photos','{"photos": []}');
INSERT INTO job_events VALUES(13,'cec7230d575702701a470b62',1795915582.4600009918,'state','{"state": "failed", "code": "PhotosRefused", "reason": "expected photographs in the archive, got none", "hint": "send ten to twelve photographs"}');
INSERT INTO job_events VALUES(14,'68b7ac692addf1f1d31d51bd',1795915582.4729964732,'stage','{"stage": "train"}');
INSERT INTO job_events VALUES(16,'68b7ac692addf1f1d31d51bd',1795915583.6389927863,'joined','{"step": 0, "steps": 6, "together": 1}');
INSERT INTO job_events VALUES(18,'68b7ac692addf1f1d31d51bd',1795915584.3180074691,'checkpoint','{"step": 3}');
INSERT INTO job_events VALUES(20,'68b7ac692addf1f1d31d51bd',1795915584.9530072212,'stage','{"stage": "publish"}');
INSERT INTO job_events VALUES(21,'68b7ac692addf1f1d31d51bd',1795915585.0100173949,'state','{"state": "succeeded"}');
INSERT INTO job_events VALUES(22,'53c293c57720fe61e7a0f456',1795915585.0619986057,'state','{"state": "queued"}');
INSERT INTO job_events VALUES(23,'53c293c57720fe61e7a0f456',1795915585.2739870548,'state','{"state": "running", "worker": "w-0"}');
INSERT INTO job_events VALUES(24,'53c293c57720fe61e7a0f456',1795915585.2819933891,'stage','{"stage": "fetch"}');
INSERT INTO job_events VALUES(25,'53c293c57720fe61e7a0f456',1795915585.3190078735,'stage','{"stage": "check"}');
INSERT INTO job_events VALUES(26,'53c293c57720fe61e7a0f456',1795915585.6100142002,'photos','{"photos": []}');
INSERT INTO job_events VALUES(27,'53c293c57720fe61e7a0f456',1795915585.6259868145,'progress','{"stage": "prepare", "done": 1, "total": 3}');
INSERT INTO job_events VALUES(28,'53c293c57720fe61e7a0f456',1795915585.6339931488,'progress','{"stage": "prepare", "done": 2, "total": 3}');
INSERT INTO job_events VALUES(29,'53c293c57720fe61e7a0f456',1795915585.6459827422,'progress','{"stage": "prepare", "done": 3, "total": 3}');
INSERT INTO job_events VALUES(30,'53c293c57720fe61e7a0f456',1795915585.8899965285,'stage','{"stage": "train"}');
INSERT INTO job_events VALUES(31,'53c293c57720fe61e7a0f456',1795915585.9859929084,'progress','{"stage": "class images", "done": 0, "total": 2, "loss": null, "images_per_s": null, "left_s": null, "together": 0}');
INSERT INTO job_events VALUES(32,'53c293c57720fe61e7a0f456',1795915586.0840008258,'joined','{"step": 0, "steps": 40, "together": 1}');
INSERT INTO job_events VALUES(33,'26b57d9f68386a6def1f2f83',1795915586.1670017242,'state','{"state": "queued"}');
INSERT INTO job_events VALUES(34,'b9ec0ceb16a2c21280c9e03c',1795915586.1999928951,'state','{"state": "queued"}');
INSERT INTO job_events VALUES(35,'b9ec0ceb16a2c21280c9e03c',1795915586.2180173397,'state','{"state": "cancelled", "code": "Cancelled", "reason": "cancelled by its owner", "hint": ""}');
CREATE TABLE job_workers (
	id VARCHAR(200) NOT NULL, 
	boot VARCHAR(64) NOT NULL, 
	beat_s DOUBLE NOT NULL, 
	lease_s DOUBLE NOT NULL, 
	concurrency INTEGER NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO job_workers VALUES('w-0','a3a714b97520590c',1795915585.6010019779,2.0,2);
CREATE TABLE job_holds (
	job VARCHAR(64) NOT NULL, 
	worker VARCHAR(200) NOT NULL, 
	PRIMARY KEY (job, worker)
);
INSERT INTO job_holds VALUES('53c293c57720fe61e7a0f456','w-0');
CREATE TABLE job_deliveries (
	id VARCHAR(64) NOT NULL, 
	job VARCHAR(64) NOT NULL, 
	tenant VARCHAR(63) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	target TEXT NOT NULL, 
	body TEXT NOT NULL, 
	place INTEGER NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	created_s DOUBLE NOT NULL, 
	due_s DOUBLE NOT NULL, 
	attempts INTEGER DEFAULT '0' NOT NULL, 
	last_error VARCHAR(200), 
	delivered_s DOUBLE, 
	PRIMARY KEY (id)
);
INSERT INTO job_deliveries VALUES('d1b45dc219f9964c07ec93ed9da1d0a1','68b7ac692addf1f1d31d51bd','local','webhook','https://example.com/hook','{"awsRegion": "local", "eventTime": "2026-11-29T01:26:25.010Z", "receivedTime": "2026-11-29T01:26:09.007Z", "invocationStatus": "Completed", "requestParameters": {"contentType": "application/x-tar", "endpointName": "fine-tuning", "inputLocation": "local/uploads/finished/5eca67b977da538986bdba3126ccc7d55bb06bf6e55725aa815600f6c899ebe4"}, "responseParameters": {"contentType": "application/json", "outputLocation": "/v1/adapters/finished"}, "inferenceId": "68b7ac692addf1f1d31d51bd", "eventVersion": "1.0", "eventSource": "aws:sagemaker", "eventName": "InferenceResult"}',1,'waiting',1795915585.0109829902,1795915590.9350175857,1,'gaierror',NULL);
CREATE TABLE job_facts (
	name VARCHAR(63) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO job_facts VALUES('webhook secret','33ba8484eb83d39e199f4b6a00cfa40cc14420aea91ce07859af9c2963303abf');
CREATE TABLE dbos_migrations (version INTEGER NOT NULL PRIMARY KEY);
INSERT INTO dbos_migrations VALUES(125);
CREATE TABLE workflow_status (
    workflow_uuid TEXT PRIMARY KEY,
    status TEXT,
    name TEXT,
    authenticated_user TEXT,
    assumed_role TEXT,
    authenticated_roles TEXT,
    request TEXT,
    output TEXT,
    error TEXT,
    executor_id TEXT,
    created_at INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000),
    updated_at INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000),
    application_version TEXT,
    application_id TEXT,
    class_name TEXT DEFAULT NULL,
    config_name TEXT DEFAULT NULL,
    recovery_attempts INTEGER DEFAULT 0,
    queue_name TEXT,
    workflow_timeout_ms INTEGER,
    workflow_deadline_epoch_ms INTEGER,
    inputs TEXT,
    started_at_epoch_ms INTEGER,
    deduplication_id TEXT,
    priority INTEGER NOT NULL DEFAULT 0
, queue_partition_key TEXT, forked_from TEXT, "owner_xid" TEXT DEFAULT NULL, "parent_workflow_id" TEXT DEFAULT NULL, "serialization" TEXT DEFAULT NULL, "delay_until_epoch_ms" BIGINT DEFAULT NULL, "was_forked_from" BOOLEAN NOT NULL DEFAULT FALSE, "rate_limited" BOOLEAN NOT NULL DEFAULT FALSE, "completed_at" BIGINT, "attributes" TEXT, "schedule_name" TEXT, "debounce_deadline_epoch_ms" BIGINT DEFAULT NULL, "is_debounced" BOOLEAN NOT NULL DEFAULT FALSE, "application_name" TEXT DEFAULT NULL, "creator_xid" TEXT DEFAULT NULL);
INSERT INTO workflow_status VALUES('68b7ac692addf1f1d31d51bd','SUCCESS','fine-tune','local',NULL,NULL,NULL,NULL,NULL,'w-0',1795915569000,1795915585000,'likeness-jobs-1',NULL,NULL,NULL,1,'training',NULL,NULL,NULL,1795915581000,NULL,1,NULL,NULL,NULL,NULL,'portable_json',NULL,0,0,1795915585000,'null',NULL,NULL,0,'likeness','a41cdedd-4ca0-4533-aad5-b488b5517b31');
INSERT INTO workflow_status VALUES('cec7230d575702701a470b62','SUCCESS','fine-tune','local',NULL,NULL,NULL,NULL,NULL,'w-0',1795915569000,1795915582000,'likeness-jobs-1',NULL,NULL,NULL,1,'training',NULL,NULL,NULL,1795915581000,NULL,2,NULL,NULL,NULL,NULL,'portable_json',NULL,0,0,1795915582000,'null',NULL,NULL,0,'likeness','d4c7e96c-d1eb-43a2-9773-6248a9345a55');
INSERT INTO workflow_status VALUES('53c293c57720fe61e7a0f456','PENDING','fine-tune','local',NULL,NULL,NULL,NULL,NULL,'w-0',1795915585000,1795915585000,'likeness-jobs-1',NULL,NULL,NULL,1,'training',NULL,NULL,NULL,1795915585000,NULL,1,NULL,NULL,'0464e707-183f-4f0b-9c7b-167347ac4dce',NULL,'portable_json',NULL,0,0,NULL,'null',NULL,NULL,0,'likeness','15ca02b5-db1a-4b41-a8e4-ecb5b59e6264');
INSERT INTO workflow_status VALUES('26b57d9f68386a6def1f2f83','ENQUEUED','fine-tune','local',NULL,NULL,NULL,NULL,NULL,NULL,1795915586000,1795915586000,'likeness-jobs-1',NULL,NULL,NULL,0,'training',NULL,NULL,NULL,NULL,NULL,2,NULL,NULL,NULL,NULL,'portable_json',NULL,0,0,NULL,'null',NULL,NULL,0,'likeness','b390e92d-7530-4ac9-a388-3080e0ede112');
INSERT INTO workflow_status VALUES('b9ec0ceb16a2c21280c9e03c','CANCELLED','fine-tune','local',NULL,NULL,NULL,NULL,NULL,NULL,1795915586000,1795915586000,'likeness-jobs-1',NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,3,NULL,NULL,NULL,NULL,'portable_json',NULL,0,0,1795915586000,'null',NULL,NULL,0,'likeness','ef1c255f-64a4-49e7-b420-505ed415327e');
CREATE TABLE notifications (
    message_uuid TEXT NOT NULL DEFAULT (hex(randomblob(16))) PRIMARY KEY,
    destination_uuid TEXT NOT NULL,
    topic TEXT,
    message TEXT NOT NULL,
    created_at_epoch_ms INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000), "serialization" TEXT DEFAULT NULL, "consumed" BOOLEAN NOT NULL DEFAULT FALSE, consumed_by_function_id INTEGER,
    FOREIGN KEY (destination_uuid) REFERENCES workflow_status(workflow_uuid) 
        ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE TABLE workflow_events (
    workflow_uuid TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL, "serialization" TEXT DEFAULT NULL,
    PRIMARY KEY (workflow_uuid, key),
    FOREIGN KEY (workflow_uuid) REFERENCES workflow_status(workflow_uuid) 
        ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE TABLE streams (
    workflow_uuid TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    "offset" INTEGER NOT NULL, function_id INTEGER NOT NULL DEFAULT 0, "serialization" TEXT DEFAULT NULL,
    PRIMARY KEY (workflow_uuid, key, "offset"),
    FOREIGN KEY (workflow_uuid) REFERENCES workflow_status(workflow_uuid) 
        ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE TABLE workflow_events_history (
    workflow_uuid TEXT NOT NULL,
    function_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL, "serialization" TEXT DEFAULT NULL,
    PRIMARY KEY (workflow_uuid, function_id, key),
    FOREIGN KEY (workflow_uuid) REFERENCES workflow_status(workflow_uuid)
        ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE TABLE workflow_schedules (
    schedule_id TEXT PRIMARY KEY,
    schedule_name TEXT NOT NULL UNIQUE,
    workflow_name TEXT NOT NULL,
    workflow_class_name TEXT,
    schedule TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'ACTIVE',
    context TEXT NOT NULL
, "last_fired_at" TEXT DEFAULT NULL, "automatic_backfill" BOOLEAN NOT NULL DEFAULT FALSE, "cron_timezone" TEXT DEFAULT NULL, "queue_name" TEXT DEFAULT NULL, "application_name" TEXT DEFAULT NULL);
CREATE TABLE application_versions (
    version_id TEXT NOT NULL PRIMARY KEY,
    version_name TEXT NOT NULL UNIQUE,
    version_timestamp INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000),
    created_at INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000)
, "application_name" TEXT DEFAULT NULL);
INSERT INTO application_versions VALUES('71e5b0e8-dac4-44c7-b0ba-4cf51e24f10f','likeness-jobs-1',1795915581000,1795915581000,'likeness');
CREATE TABLE queues (
    queue_id TEXT PRIMARY KEY DEFAULT (hex(randomblob(16))),
    name TEXT NOT NULL UNIQUE,
    concurrency INTEGER,
    worker_concurrency INTEGER,
    rate_limit_max INTEGER,
    rate_limit_period_sec REAL,
    priority_enabled BOOLEAN NOT NULL DEFAULT FALSE,
    partition_queue BOOLEAN NOT NULL DEFAULT FALSE,
    polling_interval_sec REAL NOT NULL DEFAULT 1.0,
    created_at INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000),
    updated_at INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000)
, "application_name" TEXT DEFAULT NULL, "partition_concurrency" INTEGER DEFAULT NULL, "partition_worker_concurrency" INTEGER DEFAULT NULL, "partition_rate_limit_max" INTEGER DEFAULT NULL, "partition_rate_limit_period_sec" REAL DEFAULT NULL);
CREATE TABLE workflow_input (
    workflow_uuid TEXT NOT NULL PRIMARY KEY,
    inputs TEXT,
    retention_timestamp INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000)
);
INSERT INTO workflow_input VALUES('68b7ac692addf1f1d31d51bd','{"namedArgs":{},"positionalArgs":["68b7ac692addf1f1d31d51bd"]}',1795915569000);
INSERT INTO workflow_input VALUES('cec7230d575702701a470b62','{"namedArgs":{},"positionalArgs":["cec7230d575702701a470b62"]}',1795915569000);
INSERT INTO workflow_input VALUES('53c293c57720fe61e7a0f456','{"namedArgs":{},"positionalArgs":["53c293c57720fe61e7a0f456"]}',1795915585000);
INSERT INTO workflow_input VALUES('26b57d9f68386a6def1f2f83','{"namedArgs":{},"positionalArgs":["26b57d9f68386a6def1f2f83"]}',1795915586000);
INSERT INTO workflow_input VALUES('b9ec0ceb16a2c21280c9e03c','{"namedArgs":{},"positionalArgs":["b9ec0ceb16a2c21280c9e03c"]}',1795915586000);
CREATE TABLE workflow_output (
    workflow_uuid TEXT NOT NULL PRIMARY KEY,
    output TEXT,
    error TEXT,
    retention_timestamp INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000)
);
INSERT INTO workflow_output VALUES('cec7230d575702701a470b62','"failed"',NULL,1795915582000);
INSERT INTO workflow_output VALUES('68b7ac692addf1f1d31d51bd','"succeeded"',NULL,1795915585000);
CREATE TABLE IF NOT EXISTS "operation_outputs" (
    workflow_uuid TEXT NOT NULL,
    function_id INTEGER NOT NULL,
    function_name TEXT NOT NULL DEFAULT '',
    output TEXT,
    error TEXT,
    child_workflow_id TEXT,
    started_at_epoch_ms INTEGER,
    completed_at_epoch_ms INTEGER,
    serialization TEXT,
    application_name TEXT DEFAULT NULL,
    retention_timestamp INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000),
    PRIMARY KEY (workflow_uuid, function_id)
);
INSERT INTO operation_outputs VALUES('68b7ac692addf1f1d31d51bd',1,'fetch','{"done":{"photos":"local/jobs/68b7ac692addf1f1d31d51bd/photos","bytes":153600}}',NULL,NULL,1795915581906,1795915581941,'portable_json','likeness',1795915581000);
INSERT INTO operation_outputs VALUES('cec7230d575702701a470b62',1,'fetch','{"done":{"photos":"local/jobs/cec7230d575702701a470b62/photos","bytes":10240}}',NULL,NULL,1795915581938,1795915581965,'portable_json','likeness',1795915581000);
INSERT INTO operation_outputs VALUES('68b7ac692addf1f1d31d51bd',2,'prepare','{"done":{"photos":3,"order":"{\"changes\": {\"alpha\": 4, \"checkpoint_every\": 3, \"class_images\": 2, \"instance_rows\": 2, \"prior_rows\": 1, \"rank\": 2, \"steps\": 6, \"variants\": 1}, \"class_noun\": \"dog\", \"invocation\": null, \"keep_strangers\": false, \"name\": \"finished\", \"notices\": [{\"kind\": \"webhook\", \"target\": \"https://example.com/hook\", \"when\": \"always\"}], \"photos\": \"local/uploads/finished/5eca67b977da538986bdba3126ccc7d55bb06bf6e55725aa815600f6c899ebe4\", \"queue_limit_s\": 21600, \"recipe\": \"fast\", \"replace\": false, \"seed\": 0, \"tenant\": \"local\", \"time_limit_s\": 3600}"}}',NULL,NULL,1795915581969,1795915582446,'portable_json','likeness',1795915582000);
INSERT INTO operation_outputs VALUES('cec7230d575702701a470b62',2,'prepare','{"failed":{"code":"PhotosRefused","message":"expected photographs in the archive, got none","hint":"send ten to twelve photographs"}}',NULL,NULL,1795915582001,1795915582457,'portable_json','likeness',1795915582000);
INSERT INTO operation_outputs VALUES('68b7ac692addf1f1d31d51bd',3,'train','{"done":{"adapter_sha256":"cf33779bf7885878fab915e0d58e5eb50b2a766ad0bf8922330ee77a8df174ae","steps":6,"seconds":1.237}}',NULL,NULL,1795915582452,1795915584949,'portable_json','likeness',1795915584000);
INSERT INTO operation_outputs VALUES('68b7ac692addf1f1d31d51bd',4,'publish','{"done":{"adapter_sha256":"cf33779bf7885878fab915e0d58e5eb50b2a766ad0bf8922330ee77a8df174ae"}}',NULL,NULL,1795915584952,1795915585006,'portable_json','likeness',1795915585000);
INSERT INTO operation_outputs VALUES('53c293c57720fe61e7a0f456',1,'fetch','{"done":{"photos":"local/jobs/53c293c57720fe61e7a0f456/photos","bytes":153600}}',NULL,NULL,1795915585282,1795915585307,'portable_json','likeness',1795915585000);
INSERT INTO operation_outputs VALUES('53c293c57720fe61e7a0f456',2,'prepare','{"done":{"photos":3,"order":"{\"changes\": {\"alpha\": 4, \"checkpoint_every\": 5, \"class_images\": 2, \"instance_rows\": 2, \"prior_rows\": 1, \"rank\": 2, \"steps\": 40, \"variants\": 1}, \"class_noun\": \"dog\", \"invocation\": null, \"keep_strangers\": false, \"name\": \"running\", \"notices\": [], \"photos\": \"local/uploads/running/5eca67b977da538986bdba3126ccc7d55bb06bf6e55725aa815600f6c899ebe4\", \"queue_limit_s\": 21600, \"recipe\": \"fast\", \"replace\": false, \"seed\": 0, \"tenant\": \"local\", \"time_limit_s\": 3600}"}}',NULL,NULL,1795915585317,1795915585880,'portable_json','likeness',1795915585000);
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('job_events',35);
CREATE INDEX jobs_by_state ON jobs (state, priority, submitted_s);
CREATE INDEX jobs_by_name ON jobs (tenant, name);
CREATE UNIQUE INDEX jobs_open_by_name ON jobs (tenant, name) WHERE state IN ('queued', 'running');
CREATE INDEX job_events_by_job ON job_events (job, seq);
CREATE INDEX job_deliveries_by_job ON job_deliveries (job, place);
CREATE INDEX job_deliveries_due ON job_deliveries (state, due_s);
CREATE INDEX workflow_status_created_at_index ON workflow_status (created_at);
CREATE INDEX idx_workflow_topic ON notifications (destination_uuid, topic);
CREATE INDEX "idx_workflow_status_delayed" ON "workflow_status" ("delay_until_epoch_ms") WHERE status = 'DELAYED';
CREATE INDEX "idx_workflow_status_forked_from" ON "workflow_status" ("forked_from") WHERE "forked_from" IS NOT NULL;
CREATE INDEX "idx_workflow_status_parent_workflow_id" ON "workflow_status" ("parent_workflow_id") WHERE "parent_workflow_id" IS NOT NULL;
CREATE UNIQUE INDEX "uq_workflow_status_dedup_id" ON "workflow_status" ("queue_name", "deduplication_id") WHERE "deduplication_id" IS NOT NULL;
CREATE INDEX "idx_workflow_status_pending" ON "workflow_status" ("created_at") WHERE "status" = 'PENDING';
CREATE INDEX "idx_workflow_status_failed" ON "workflow_status" ("status", "created_at") WHERE "status" IN ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED');
CREATE INDEX "idx_workflow_status_rate_limited" ON "workflow_status" ("queue_name", "started_at_epoch_ms") WHERE "rate_limited" = TRUE;
CREATE INDEX "idx_workflow_status_completed_at" ON "workflow_status" ("completed_at") WHERE "completed_at" IS NOT NULL;
CREATE INDEX "idx_workflow_status_started_at" ON "workflow_status" ("started_at_epoch_ms") WHERE "started_at_epoch_ms" IS NOT NULL;
CREATE INDEX "idx_workflow_status_schedule_name" ON "workflow_status" ("schedule_name") WHERE "schedule_name" IS NOT NULL;
CREATE UNIQUE INDEX "uq_application_versions_owner_version"
    ON application_versions ("application_name", "version_name")
    WHERE "application_name" IS NOT NULL;
CREATE UNIQUE INDEX "uq_application_versions_unclaimed_version"
    ON application_versions ("version_name")
    WHERE "application_name" IS NULL;
CREATE INDEX idx_workflow_input_retention
    ON workflow_input (retention_timestamp);
CREATE INDEX idx_workflow_output_retention
    ON workflow_output (retention_timestamp);
CREATE INDEX idx_operation_outputs_retention
    ON operation_outputs (retention_timestamp);
CREATE INDEX "idx_workflow_status_in_flight_v2" ON "workflow_status" ("queue_name", "status", "priority", "created_at", "application_name") WHERE "status" IN ('ENQUEUED', 'PENDING');
CREATE INDEX "idx_workflow_status_partition_dequeue_v3" ON "workflow_status" ("queue_name", "status", "queue_partition_key", "priority", "created_at", "workflow_uuid", "application_name") WHERE "status" IN ('ENQUEUED', 'PENDING') AND "queue_partition_key" IS NOT NULL;
CREATE INDEX "idx_operation_outputs_completed_at_function_name_v2" ON "operation_outputs" ("completed_at_epoch_ms", "function_name", "application_name");
CREATE INDEX "idx_workflow_status_deadline" ON "workflow_status" ("workflow_deadline_epoch_ms") WHERE "status" IN ('ENQUEUED', 'PENDING', 'DELAYED') AND "workflow_deadline_epoch_ms" IS NOT NULL;
CREATE INDEX "idx_application_versions_timestamp" ON "application_versions" ("version_timestamp" DESC);
CREATE INDEX "idx_application_versions_owner_timestamp" ON "application_versions" ("application_name", "version_timestamp" DESC);
COMMIT;
