"""Counts its visitors in a database and tells each how many there were."""

import hashlib
import http.server
import json
import sqlite3
import sys


class Visits(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with sqlite3.connect("/data/visits.db") as db:
            db.execute("CREATE TABLE IF NOT EXISTS visit (path TEXT NOT NULL)")
            db.execute("INSERT INTO visit VALUES (?)", (self.path,))
            (count,) = db.execute("SELECT count(*) FROM visit").fetchone()
        digest = hashlib.sha256(self.path.encode()).hexdigest()
        body = json.dumps({"visits": count, "sha256": digest}).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


port = int(sys.argv[1])
http.server.ThreadingHTTPServer(("", port), Visits).serve_forever()
