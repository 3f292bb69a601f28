"""nginx as a WebSocket proxy: it keeps WebSocket, so it neither frames nor unmasks."""

from __future__ import annotations

from contextlib import ExitStack

from bench.rivals.base import (
    WEBSOCKET,
    Ports,
    Running,
    Subject,
    directory,
    launch,
    needs_program,
    program,
)
from bench.wire import Route, free_port

CONFIG = """\
daemon off;
worker_processes 1;
pid {home}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://127.0.0.1:{target};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection Upgrade;
      proxy_buffer_size 64k;
      proxy_buffers 8 64k;
      proxy_busy_buffers_size 128k;
    }}
  }}
}}
"""


def _start(stack: ExitStack, ports: Ports) -> Running:
    home, port = directory(stack), free_port()
    config = home / "nginx.conf"
    config.write_text(CONFIG.format(home=home, port=port, target=ports.websocket))
    command = [program("nginx") or "nginx", "-e", "stderr", "-p", str(home), "-c", str(config)]
    process = launch(stack, command, port=port)
    return Running([process.pid], lambda: Route(port, websocket=True), keeps_websocket=True)


NGINX = Subject(
    "nginx",
    "nginx (WebSocket on both sides)",
    frozenset({WEBSOCKET}),
    _start,
    needs_program("nginx", "apt install nginx-light"),
)
