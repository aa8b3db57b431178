// Starts a container of the image in the first argument with Testcontainers, as a test of somebody's app does; prints how it
// is reached, and waits to be killed.
import console from 'node:console';
import { argv } from 'node:process';
import { setInterval } from 'node:timers';
import { GenericContainer, Wait } from 'testcontainers';

const container = await new GenericContainer(argv[2])
  .withCommand(['/bin/httpd', '-f', '-p', '80', '-h', '/www'])
  .withExposedPorts(80)
  .withWaitStrategy(Wait.forHttp('/', 80))
  .withStartupTimeout(240_000)
  .start();
const { output } = await container.exec(['/bin/echo', 'executed']);
console.log(JSON.stringify({ host: container.getHost(), port: container.getMappedPort(80), output }));
setInterval(() => undefined, 60_000);
