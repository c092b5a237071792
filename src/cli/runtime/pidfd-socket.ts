import { ContainerError } from "../../error.ts";
import { close } from "../../kernel/file.ts";
import { connectStream, send } from "../../kernel/socket.ts";

export const PIDFD_SOCKET = {
  kind: "string",
  help: "path to an AF_UNIX socket which will receive a file descriptor referencing the process",
} as const;

/**
 * Connects to the socket of --pidfd-socket, so that one nobody listens on is found before there is a process.
 * @returns what sends it a pidfd; as with runc the text beside it says whether it is the container's first process
 */
export function openPidfdSocket(path: string | undefined): (pidfd: number, kind: "standard" | "setns") => void {
  if (path === undefined) return () => undefined;
  const socket = connectStream(path);
  return (pidfd, kind) => {
    const sent = send(socket, Buffer.from(kind), [pidfd]);
    close(socket);
    if (!sent) throw new ContainerError({ message: "failed to send pidfd on socket: nobody listens", code: "EPIPE" });
  };
}
