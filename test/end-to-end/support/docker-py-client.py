"""Uses docker-py on a host: image and container in the arguments. Prints what it has seen as JSON."""

import io
import json
import sys
import tarfile

import docker

image, container_name = sys.argv[1:]
client = docker.from_env(timeout=240)
container = client.containers.get(container_name)
seen = {}

output = client.containers.run(image, ["/bin/echo", "run"], remove=True, network_mode="none")
seen["run"] = output.decode()
exit_code, output = container.exec_run(["/bin/cat", "/www/index.html"])
seen["exec"] = [exit_code, output.decode()]

content = b"from docker-py\n"
archive = io.BytesIO()
with tarfile.open(fileobj=archive, mode="w") as tar:
    entry = tarfile.TarInfo("put")
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
container.put_archive("/tmp", archive.getvalue())
chunks, _ = container.get_archive("/tmp/put")
with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
    seen["archive"] = tar.extractfile("put").read().decode()

dockerfile = f"FROM {image}\nLABEL made=docker-py\nRUN /bin/echo built\n"
built, _ = client.images.build(fileobj=io.BytesIO(dockerfile.encode()), rm=True, tag="docker-py:1")
seen["label"] = built.labels["made"]

# As a client of a shell does: writes, and reads the answer before it writes more. docker.utils.socket can't do it over TLS:
# it waits for bytes of the socket although the TLS layer has the rest of the frame.
command = client.api.exec_create(container.id, ["/bin/cat"], stdin=True)
stream = client.api.exec_start(command["Id"], socket=True)
stream.settimeout(240)
stream.sendall(b"echoed\n")
with stream.makefile("rb") as frames:
    size = int.from_bytes(frames.read(8)[4:], "big")
    seen["stdin"] = frames.read(size).decode()
stream.close()
print(json.dumps(seen))
