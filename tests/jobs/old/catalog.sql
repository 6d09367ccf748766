PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE adapters (
	tenant VARCHAR(63) NOT NULL, 
	name VARCHAR(63) NOT NULL, 
	content_sha256 VARCHAR(64) NOT NULL, 
	base_sha256 VARCHAR(64) NOT NULL, 
	rank INTEGER NOT NULL, 
	bytes BIGINT NOT NULL, 
	"key" VARCHAR(900) NOT NULL, 
	card TEXT NOT NULL, 
	created VARCHAR(40) NOT NULL, 
	PRIMARY KEY (tenant, name)
);
INSERT INTO adapters VALUES('local','finished','cf33779bf7885878fab915e0d58e5eb50b2a766ad0bf8922330ee77a8df174ae','27405c41d39a7b234b22018e33ced4e3c55319a3556e6c79ca14845389f6d48d',2,101056,'local/adapters/finished/cf33779bf7885878fab915e0d58e5eb50b2a766ad0bf8922330ee77a8df174ae.safetensors',replace('{\n  "alpha": 4.0,\n  "base_id": "base",\n  "base_sha256": "27405c41d39a7b234b22018e33ced4e3c55319a3556e6c79ca14845389f6d48d",\n  "class_noun": "dog",\n  "content_sha256": "cf33779bf7885878fab915e0d58e5eb50b2a766ad0bf8922330ee77a8df174ae",\n  "created": "2026-11-29T01:26:24+00:00",\n  "family": "likeness-128",\n  "identifier": "<<TOK>>",\n  "name": "finished",\n  "photos": 3,\n  "rank": 2,\n  "recipe": {\n    "alpha": 4,\n    "background_weight": 0.15,\n    "checkpoint_every": 3,\n    "class_images": 2,\n    "clip_norm": 1.0,\n    "decay": true,\n    "face_gain": 1.0,\n    "instance_rows": 2,\n    "middle_timesteps": true,\n    "min_snr_gamma": 5.0,\n    "name": "fast",\n    "prior_from_base": true,\n    "prior_rows": 1,\n    "prior_weight": 1.0,\n    "rank": 2,\n    "steps": 6,\n    "text_learning_rate": 1e-05,\n    "text_rank": null,\n    "text_targets": [\n      "q_proj",\n      "k_proj",\n      "v_proj",\n      "out_proj",\n      "fc1",\n      "fc2"\n    ],\n    "unet_learning_rate": 0.0001,\n    "unet_targets": [\n      "to_q",\n      "to_k",\n      "to_v",\n      "to_out.0",\n      "ff.net.0.proj",\n      "ff.net.2",\n      "conv1",\n      "conv2"\n    ],\n    "variants": 1,\n    "vary_background": true,\n    "warmup_steps": 20,\n    "weight_decay": 0.01\n  },\n  "seconds": 1.237,\n  "seed": 0,\n  "steps": 6,\n  "versions": {\n    "likeness": "0.1.0",\n    "torch": "2.13.0+cpu"\n  }\n}\n','\n',char(10)),'2026-11-29T01:26:24+00:00');
CREATE TABLE forgettings (
	tenant VARCHAR(63) NOT NULL, 
	name VARCHAR(63) NOT NULL, 
	begun VARCHAR(40) NOT NULL, 
	deleted TEXT NOT NULL, 
	PRIMARY KEY (tenant, name)
);
CREATE TABLE outputs (
	tenant VARCHAR(63) NOT NULL, 
	id VARCHAR(64) NOT NULL, 
	subject VARCHAR(63) NOT NULL, 
	media_type VARCHAR(40) NOT NULL, 
	bytes BIGINT NOT NULL, 
	"key" VARCHAR(900) NOT NULL, 
	created VARCHAR(40) NOT NULL, 
	PRIMARY KEY (tenant, id)
);
CREATE TABLE receipts (
	tenant VARCHAR(63) NOT NULL, 
	name VARCHAR(63) NOT NULL, 
	at VARCHAR(40) NOT NULL, 
	items TEXT NOT NULL, 
	PRIMARY KEY (tenant, name, at)
);
CREATE TABLE schema (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO schema VALUES(1);
CREATE TABLE subjects (
	tenant VARCHAR(63) NOT NULL, 
	name VARCHAR(63) NOT NULL, 
	class_noun VARCHAR(100) NOT NULL, 
	identifier VARCHAR(100) NOT NULL, 
	consent TEXT NOT NULL, 
	consented VARCHAR(40) NOT NULL, 
	created VARCHAR(40) NOT NULL, 
	PRIMARY KEY (tenant, name)
);
CREATE TABLE tenants (
	tenant VARCHAR(63) NOT NULL, 
	created VARCHAR(40) NOT NULL, 
	PRIMARY KEY (tenant)
);
CREATE TABLE api_keys (
	id VARCHAR(32) NOT NULL, 
	tenant VARCHAR(63) NOT NULL, 
	secret_sha256 VARCHAR(64) NOT NULL, 
	label VARCHAR(100) NOT NULL, 
	created VARCHAR(40) NOT NULL, 
	revoked VARCHAR(40), 
	PRIMARY KEY (id), 
	FOREIGN KEY(tenant) REFERENCES tenants (tenant)
);
CREATE TABLE photos (
	tenant VARCHAR(63) NOT NULL, 
	subject VARCHAR(63) NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	file VARCHAR(200) NOT NULL, 
	bytes BIGINT NOT NULL, 
	report TEXT NOT NULL, 
	"key" VARCHAR(900) NOT NULL, 
	created VARCHAR(40) NOT NULL, 
	PRIMARY KEY (tenant, subject, sha256), 
	FOREIGN KEY(tenant, subject) REFERENCES subjects (tenant, name) ON DELETE CASCADE
);
CREATE INDEX outputs_of_subject ON outputs (tenant, subject, created);
COMMIT;
