/*
 * The addon: conversion and the call, no policy. Every function answers a result >= 0 or -errno.
 * No libuv in here: bun does not implement it.
 */
#include <napi.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../plan/plan.h"

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

namespace
{

/* Where the calls of the current host step are reported: the container's trace, mapped; see plan.h. */
struct {
	trace_header *header = nullptr;
	size_t length = 0;
	int step = -1;
	uint16_t kind = REPORT_HOST;
} trace;

uint64_t now_ns()
{
	timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

long result_of(long value)
{
	return value == -1 ? -errno : value;
}

/* A trace is for looking at: of a long string its first 288 bytes will do. */
constexpr size_t TEXT_BYTES = sizeof report_text::text, TEXT_PIECES = 4;

/* The arguments of a call that are strings: bit i of `given` says that strings[i] is one. */
struct texts {
	std::string strings[6];
	unsigned given = 0;

	size_t pieces(size_t i) const
	{
		if ((given & 1u << i) == 0)
			return 0;
		return std::clamp((strings[i].length() + TEXT_BYTES - 1) / TEXT_BYTES, size_t{1}, TEXT_PIECES);
	}
};

/* Leaves a report, and behind it the strings that its arguments point at. */
void leave_report(const report &call, const texts &texts)
{
	uint64_t length = 1;
	for (size_t i = 0; i < 6; i++)
		length += texts.pieces(i);
	uint64_t at = __atomic_fetch_add(&trace.header->count, length, __ATOMIC_RELAXED);
	if (at >= trace.header->capacity || length > trace.header->capacity - at)
		return;
	report *entry = reinterpret_cast<report *>(trace.header + 1) + at;
	*entry = call;
	for (size_t i = 0; i < 6; i++)
		for (size_t piece = 0; piece < texts.pieces(i); piece++) {
			size_t from = piece * TEXT_BYTES;
			report_text text = {};
			texts.strings[i].copy(text.text, TEXT_BYTES, from);
			text.arg = static_cast<uint16_t>(i);
			text.kind = REPORT_TEXT;
			text.length = static_cast<uint32_t>(texts.strings[i].length() - from);
			memcpy(++entry, &text, sizeof text);
		}
}

/* Calls the kernel; while a host step runs, leaves a report of it. */
long call(long nr, const uint64_t args[6], const texts &texts = {})
{
#ifdef CAISSON_NO_REPORTS
	trace.step = -1; /* what reports cost is measured against this: npm run bench -- trace */
#endif
	uint64_t started = trace.step < 0 ? 0 : now_ns();
	long result = result_of(syscall(nr, args[0], args[1], args[2], args[3], args[4], args[5]));
	if (trace.step < 0 || trace.header == nullptr)
		return result;
	report made = {
	    started, now_ns(), result, {}, static_cast<uint16_t>(trace.step), trace.kind, static_cast<uint32_t>(nr)};
	memcpy(made.args, args, sizeof made.args);
	leave_report(made, texts);
	return result;
}

long call(long nr, uint64_t a0 = 0, uint64_t a1 = 0, uint64_t a2 = 0, uint64_t a3 = 0, uint64_t a4 = 0, uint64_t a5 = 0)
{
	const uint64_t args[6] = {a0, a1, a2, a3, a4, a5};
	return call(nr, args);
}

uint64_t address(const void *pointer)
{
	return reinterpret_cast<uint64_t>(pointer);
}

int int_at(const Napi::CallbackInfo &info, size_t index)
{
	return info[index].As<Napi::Number>().Int32Value();
}

/* Utf8Value() asks for the length first, which in bun is as dear as the text; most texts are short paths. */
std::string text_of(const Napi::String &value)
{
	char text[512];
	size_t length = 0;
	napi_get_value_string_utf8(value.Env(), value, text, sizeof text, &length);
	/* what does not fit is cut at a character's end: up to three bytes early */
	return length < sizeof text - 4 ? std::string(text, length) : value.Utf8Value();
}

/* syscall(nr, ...up to six of number | bigint | string | Uint8Array | null) */
Napi::Value Syscall(const Napi::CallbackInfo &info)
{
	uint64_t args[6] = {};
	texts texts;
	size_t count = info.Length() - 1 < 6 ? info.Length() - 1 : 6;
	for (size_t i = 0; i < count; i++) {
		Napi::Value value = info[i + 1];
		switch (value.Type()) {
		case napi_number:
			args[i] = static_cast<uint64_t>(value.As<Napi::Number>().Int64Value());
			break;
		case napi_string:
			texts.strings[i] = text_of(value.As<Napi::String>());
			texts.given |= 1u << i;
			/* a path with a NUL inside would name another file than the one that was checked */
			if (texts.strings[i].find('\0') != std::string::npos)
				return Napi::Number::New(info.Env(), -EINVAL);
			args[i] = address(texts.strings[i].c_str());
			break;
		case napi_bigint: {
			bool lossless;
			args[i] = value.As<Napi::BigInt>().Uint64Value(&lossless);
			break;
		}
		default:
			if (value.IsTypedArray()) {
				Napi::TypedArray array = value.As<Napi::TypedArray>();
				args[i] =
				    address(static_cast<uint8_t *>(array.ArrayBuffer().Data()) + array.ByteOffset());
			}
		}
	}
	return Napi::Number::New(info.Env(),
				 static_cast<double>(call(info[0].As<Napi::Number>().Int64Value(), args, texts)));
}

/* address(bytes): for structures of the kernel that hold pointers; good for as long as the caller keeps the bytes. */
Napi::Value Address(const Napi::CallbackInfo &info)
{
	Napi::Uint8Array bytes = info[0].As<Napi::Uint8Array>();
	return Napi::BigInt::New(info.Env(), address(bytes.Data()));
}

/* traceTo(fd): reports go into this trace from now on; -1 ends it. */
Napi::Value TraceTo(const Napi::CallbackInfo &info)
{
	if (trace.header != nullptr)
		munmap(trace.header, trace.length);
	trace.header = nullptr;
	trace.step = -1;
	int fd = int_at(info, 0);
	long result = 0;
	struct stat seen;
	if (fd >= 0 && fstat(fd, &seen) == 0) {
		void *map = mmap(nullptr, static_cast<size_t>(seen.st_size), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (map == MAP_FAILED) {
			result = -errno;
		} else {
			trace.header = static_cast<trace_header *>(map);
			trace.length = static_cast<size_t>(seen.st_size);
		}
	}
	return Napi::Number::New(info.Env(), static_cast<double>(result));
}

/* traceStep(index, undo): calls belong to this step of the plan, or to taking it back; -1: to none. */
Napi::Value TraceStep(const Napi::CallbackInfo &info)
{
	trace.step = int_at(info, 0);
	trace.kind = info[1].IsBoolean() && info[1].As<Napi::Boolean>().Value() ? REPORT_UNDO : REPORT_HOST;
	return info.Env().Undefined();
}

struct launch {
	int file;
	const char *path; /* instead of file: a script can only be executed by its name */
	int *descriptors; /* the child's descriptor i is descriptors[i]; -1: closed */
	int *scratch;
	int count;
	char **argv;
	char **envp;
	struct rlimit nofile;
	bool limit;
	bool leads; /* a process group of its own, so that all of it can be killed */
};

/*
 * Between vfork and execveat the child shares our memory and must not touch it beyond its own variables.
 * What JavaScript engines change in themselves is put back: signal mask, dispositions, RLIMIT_NOFILE.
 */
[[noreturn]] void exec_child(const launch *what)
{
	for (int number = 1; number < NSIG; number++)
		if (number != SIGKILL && number != SIGSTOP)
			signal(number, SIG_DFL);
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, nullptr);
	if (what->leads)
		setpgid(0, 0);
	/* what a container makes, and what is made for it, has the usual permissions, whoever calls us */
	umask(022);
	/* move the sources out of the way first: a target may be another one's source */
	int file = what->path != nullptr ? -1 : fcntl(what->file, F_DUPFD_CLOEXEC, what->count);
	for (int i = 0; i < what->count; i++)
		what->scratch[i] =
		    what->descriptors[i] < 0 ? -1 : fcntl(what->descriptors[i], F_DUPFD_CLOEXEC, what->count);
	for (int i = 0; i < what->count; i++)
		if (what->scratch[i] < 0 ? close(i), what->descriptors[i] >= 0 : dup2(what->scratch[i], i) < 0)
			_exit(126);
	syscall(SYS_close_range, what->count, ~0U, CLOSE_RANGE_CLOEXEC);
	if (what->limit)
		setrlimit(RLIMIT_NOFILE, &what->nofile);
	if (what->path != nullptr)
		execve(what->path, what->argv, what->envp);
	else
		syscall(SYS_execveat, file, "", what->argv, what->envp, AT_EMPTY_PATH);
	_exit(127);
}

std::vector<std::string> strings_of(const Napi::Array &array)
{
	std::vector<std::string> strings;
	for (uint32_t i = 0; i < array.Length(); i++)
		strings.push_back(array.Get(i).As<Napi::String>().Utf8Value());
	return strings;
}

std::vector<char *> vector_of(std::vector<std::string> &strings)
{
	std::vector<char *> vector;
	for (std::string &string : strings)
		vector.push_back(string.data());
	vector.push_back(nullptr);
	return vector;
}

/* spawn(file descriptor | path, argv, env, descriptors, nofileSoft | -1, leads) -> pid or -errno */
Napi::Value Spawn(const Napi::CallbackInfo &info)
{
	std::vector<std::string> arguments = strings_of(info[1].As<Napi::Array>());
	std::vector<std::string> environment = strings_of(info[2].As<Napi::Array>());
	std::vector<char *> argv = vector_of(arguments), envp = vector_of(environment);
	Napi::Array given = info[3].As<Napi::Array>();
	std::vector<int> descriptors, scratch(given.Length());
	for (uint32_t i = 0; i < given.Length(); i++)
		descriptors.push_back(given.Get(i).As<Napi::Number>().Int32Value());
	std::string path = info[0].IsString() ? info[0].As<Napi::String>().Utf8Value() : "";
	launch what = {info[0].IsString() ? -1 : int_at(info, 0),
		       info[0].IsString() ? path.c_str() : nullptr,
		       descriptors.data(),
		       scratch.data(),
		       static_cast<int>(descriptors.size()),
		       argv.data(),
		       envp.data(),
		       {},
		       false,
		       info[5].As<Napi::Boolean>().Value()};
	/* where our caller ignored SIGCHLD, so do we, and the kernel would not keep how our children end: waitid(2) */
	struct sigaction child_ends;
	if (sigaction(SIGCHLD, nullptr, &child_ends) == 0 && child_ends.sa_handler == SIG_IGN)
		signal(SIGCHLD, SIG_DFL);
	int64_t soft = info[4].As<Napi::Number>().Int64Value();
	if (soft >= 0 && getrlimit(RLIMIT_NOFILE, &what.nofile) == 0 &&
	    static_cast<rlim_t>(soft) <= what.nofile.rlim_max) {
		what.nofile.rlim_cur = static_cast<rlim_t>(soft);
		what.limit = true;
	}
	/* a handler of ours must not run in the child while it shares our memory */
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	uint64_t started = now_ns();
	pid_t pid = vfork();
	if (pid == 0)
		exec_child(&what);
	long result = pid < 0 ? -errno : pid;
	pthread_sigmask(SIG_SETMASK, &before, nullptr);
	if (trace.step >= 0 && trace.header != nullptr)
		leave_report({started, now_ns(), result, {}, static_cast<uint16_t>(trace.step), trace.kind, SYS_vfork},
			     {});
	return Napi::Number::New(info.Env(), static_cast<double>(result));
}

/* poll(descriptors, events, timeoutMs | -1) -> revents of each, or -errno */
Napi::Value Poll(const Napi::CallbackInfo &info)
{
	Napi::Array given = info[0].As<Napi::Array>(), events = info[1].As<Napi::Array>();
	std::vector<pollfd> fds;
	for (uint32_t i = 0; i < given.Length(); i++)
		fds.push_back({given.Get(i).As<Napi::Number>().Int32Value(),
			       static_cast<short>(events.Get(i).As<Napi::Number>().Int32Value()), 0});
	int ready = poll(fds.data(), fds.size(), int_at(info, 2));
	if (ready < 0)
		return Napi::Number::New(info.Env(), -errno);
	Napi::Array seen = Napi::Array::New(info.Env(), fds.size());
	for (uint32_t i = 0; i < fds.size(); i++)
		seen.Set(i, Napi::Number::New(info.Env(), fds[i].revents));
	return seen;
}

int signal_pipe[2] = {-1, -1};

void note_signal(int number)
{
	int saved = errno;
	unsigned char byte = static_cast<unsigned char>(number);
	/* a full pipe holds thousands of signals: one more adds nothing */
	ssize_t ignored = write(signal_pipe[1], &byte, 1);
	(void)ignored;
	errno = saved;
}

/* catchSignals(numbers) -> a descriptor from which each caught signal can be read as one byte */
Napi::Value CatchSignals(const Napi::CallbackInfo &info)
{
	if (signal_pipe[0] < 0 && pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) < 0)
		return Napi::Number::New(info.Env(), -errno);
	struct sigaction action = {};
	action.sa_handler = note_signal;
	action.sa_flags = SA_RESTART;
	sigfillset(&action.sa_mask);
	Napi::Array numbers = info[0].As<Napi::Array>();
	for (uint32_t i = 0; i < numbers.Length(); i++)
		sigaction(numbers.Get(i).As<Napi::Number>().Int32Value(), &action, nullptr);
	return Napi::Number::New(info.Env(), signal_pipe[0]);
}

/* send(socket, bytes, descriptors) -> bytes sent or -errno */
Napi::Value Send(const Napi::CallbackInfo &info)
{
	Napi::Uint8Array bytes = info[1].As<Napi::Uint8Array>();
	Napi::Array given = info[2].As<Napi::Array>();
	alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * PLAN_SLOTS)] = {};
	iovec vec = {bytes.Data(), bytes.ByteLength()};
	msghdr message = {};
	message.msg_iov = &vec;
	message.msg_iovlen = 1;
	uint32_t count = given.Length();
	if (count > 253) /* SCM_MAX_FD */
		return Napi::Number::New(info.Env(), -EINVAL);
	if (count > 0) {
		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
		cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int) * count);
		for (uint32_t i = 0; i < count; i++) {
			int fd = given.Get(i).As<Napi::Number>().Int32Value();
			memcpy(CMSG_DATA(header) + sizeof(int) * i, &fd, sizeof fd);
		}
	}
	long result = call(SYS_sendmsg, static_cast<uint64_t>(int_at(info, 0)), address(&message), MSG_NOSIGNAL);
	return Napi::Number::New(info.Env(), static_cast<double>(result));
}

/* receive(socket, bytes, flags) -> [length or -errno, ...descriptors] */
Napi::Value Receive(const Napi::CallbackInfo &info)
{
	Napi::Uint8Array bytes = info[1].As<Napi::Uint8Array>();
	alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * PLAN_SLOTS)] = {};
	iovec vec = {bytes.Data(), bytes.ByteLength()};
	msghdr message = {};
	message.msg_iov = &vec;
	message.msg_iovlen = 1;
	message.msg_control = control;
	message.msg_controllen = sizeof control;
	long result;
	do
		result = call(SYS_recvmsg, static_cast<uint64_t>(int_at(info, 0)), address(&message),
			      static_cast<uint64_t>(MSG_CMSG_CLOEXEC | int_at(info, 2)));
	while (result == -EINTR);
	Napi::Array answer = Napi::Array::New(info.Env());
	uint32_t at = 0;
	answer.Set(at++, Napi::Number::New(info.Env(), static_cast<double>(result)));
	if (result < 0)
		return answer;
	for (cmsghdr *header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t used = CMSG_LEN(0); used + sizeof(int) <= header->cmsg_len; used += sizeof(int)) {
			int fd;
			memcpy(&fd, reinterpret_cast<char *>(header) + used, sizeof fd);
			answer.Set(at++, Napi::Number::New(info.Env(), fd));
		}
	}
	return answer;
}

/*
 * socketIn(netns, domain, type, protocol) -> a socket that lives in that network namespace.
 * The thread is elsewhere only within this call; if it cannot come back it must not go on.
 */
Napi::Value SocketIn(const Napi::CallbackInfo &info)
{
	int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (home < 0)
		return Napi::Number::New(info.Env(), -errno);
	long result = call(SYS_setns, static_cast<uint64_t>(int_at(info, 0)), CLONE_NEWNET);
	if (result >= 0) {
		result =
		    call(SYS_socket, static_cast<uint64_t>(int_at(info, 1)),
			 static_cast<uint64_t>(int_at(info, 2) | SOCK_CLOEXEC), static_cast<uint64_t>(int_at(info, 3)));
		if (call(SYS_setns, static_cast<uint64_t>(home), CLONE_NEWNET) < 0)
			abort();
	}
	close(home);
	return Napi::Number::New(info.Env(), static_cast<double>(result));
}

/*
 * writeFile(parent, name, bytes, mode, uid, gid, mtimeSeconds, mtimeNanoseconds, xattrs [name, bytes, ...]) -> 0 or -errno
 * One small file of a layer in one crossing. The parent is a descriptor and the name has no slash, so no path is walked;
 * O_EXCL and O_NOFOLLOW: an entry never writes through what an earlier one left there.
 */
Napi::Value WriteFile(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	Napi::Uint8Array name_bytes = info[1].As<Napi::Uint8Array>();
	std::string name(reinterpret_cast<char *>(name_bytes.Data()), name_bytes.ByteLength());
	Napi::Uint8Array bytes = info[2].As<Napi::Uint8Array>();
	int fd = openat(int_at(info, 0), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return Napi::Number::New(env, -errno);
	long result = 0;
	for (size_t done = 0; done < bytes.ByteLength() && result == 0;) {
		ssize_t wrote = write(fd, bytes.Data() + done, bytes.ByteLength() - done);
		if (wrote < 0 && errno != EINTR)
			result = -errno;
		else if (wrote > 0)
			done += static_cast<size_t>(wrote);
	}
	/* chown clears set-id bits and capabilities, so mode and xattrs come after it */
	if (result == 0 && fchown(fd, static_cast<uid_t>(info[4].As<Napi::Number>().Int64Value()),
				  static_cast<gid_t>(info[5].As<Napi::Number>().Int64Value())) < 0)
		result = -errno;
	if (result == 0 && fchmod(fd, static_cast<mode_t>(int_at(info, 3))) < 0)
		result = -errno;
	Napi::Array xattrs = info[8].As<Napi::Array>();
	for (uint32_t i = 0; i + 1 < xattrs.Length() && result == 0; i += 2) {
		std::string key = xattrs.Get(i).As<Napi::String>().Utf8Value();
		Napi::Uint8Array value = xattrs.Get(i + 1).As<Napi::Uint8Array>();
		if (syscall(SYS_fsetxattr, fd, key.c_str(), value.Data(), value.ByteLength(), 0) < 0)
			result = -errno;
	}
	timespec times[2] = {};
	times[1].tv_sec = static_cast<time_t>(info[6].As<Napi::Number>().Int64Value());
	times[1].tv_nsec = info[7].As<Napi::Number>().Int64Value();
	times[0] = times[1];
	if (result == 0 && futimens(fd, times) < 0)
		result = -errno;
	close(fd);
	return Napi::Number::New(env, static_cast<double>(result));
}

Napi::Object Init(Napi::Env env, Napi::Object exports)
{
	exports.Set("syscall", Napi::Function::New<Syscall>(env));
	exports.Set("address", Napi::Function::New<Address>(env));
	exports.Set("traceTo", Napi::Function::New<TraceTo>(env));
	exports.Set("traceStep", Napi::Function::New<TraceStep>(env));
	exports.Set("spawn", Napi::Function::New<Spawn>(env));
	exports.Set("poll", Napi::Function::New<Poll>(env));
	exports.Set("catchSignals", Napi::Function::New<CatchSignals>(env));
	exports.Set("send", Napi::Function::New<Send>(env));
	exports.Set("receive", Napi::Function::New<Receive>(env));
	exports.Set("socketIn", Napi::Function::New<SocketIn>(env));
	exports.Set("writeFile", Napi::Function::New<WriteFile>(env));
	return exports;
}

} // namespace

NODE_API_MODULE(caisson, Init)
