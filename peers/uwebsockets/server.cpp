// uWebSockets as its own examples use it (EchoServerThreaded, BroadcastingEchoServer): one App with its loop per worker, all on
// one port by SO_REUSEPORT; replies inside a message handler are corked by the library, broadcasts go through its topics.
// TCP_NODELAY is set by uSockets on every accepted socket.

#include "App.h"

#include <arpa/inet.h>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <future>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>
#include <thread>
#include <vector>

struct Options {
    std::string host = "127.0.0.1";
    int port = 0;
    std::vector<int> cpus;
    unsigned workers = 0;
    unsigned handler_work_us = 0;
};

// One per connection; echoing connections have no topic.
struct Connection {
    std::string topic;
};

struct Worker {
    uWS::App *app = nullptr;
    uWS::Loop *loop = nullptr;
};

static std::vector<Worker> workers;

[[noreturn]] static void fail(const std::string &why) {
    fprintf(stderr, "error: %s\n", why.c_str());
    exit(1);
}

static int number(const std::string &text, long most = 65535) {
    char *end = nullptr;
    long value = strtol(text.c_str(), &end, 10);
    if (text.empty() || *end || value < 0 || value > most) {
        fail("`" + text + "` is no number from 0 to " + std::to_string(most));
    }
    return (int) value;
}

static std::vector<std::string> split(const std::string &text, char at) {
    std::vector<std::string> parts;
    size_t from = 0;
    for (size_t to; (to = text.find(at, from)) != std::string::npos; from = to + 1) {
        parts.push_back(text.substr(from, to - from));
    }
    parts.push_back(text.substr(from));
    return parts;
}

static Options parse(int argc, char **argv) {
    Options options;
    for (int i = 1; i < argc; i += 2) {
        std::string flag = argv[i];
        if (i + 1 == argc) {
            fail("usage: peer-uwebsockets [--listen HOST:PORT] [--cpus LIST] [--workers N] [--handler-work-us N, 0 to 1000000]");
        }
        std::string value = argv[i + 1];
        if (flag == "--listen") {
            size_t colon = value.rfind(':');
            if (colon == std::string::npos) {
                fail("`" + value + "` is no HOST:PORT");
            }
            options.host = value.substr(0, colon);
            options.port = number(value.substr(colon + 1));
        } else if (flag == "--cpus") {
            for (const std::string &part : split(value, ',')) {
                std::vector<std::string> ends = split(part, '-');
                for (int cpu = number(ends.front()); cpu <= number(ends.back()); cpu++) {
                    options.cpus.push_back(cpu);
                }
            }
        } else if (flag == "--workers") {
            options.workers = (unsigned) number(value);
        } else if (flag == "--handler-work-us") {
            options.handler_work_us = (unsigned) number(value, 1000000);
        } else {
            fail("unknown flag " + flag);
        }
    }
    if (!options.workers) {
        options.workers = options.cpus.empty() ? 1 : (unsigned) options.cpus.size();
    }
    return options;
}

// What a handler would burn for each message, in steps of plain arithmetic: the method of server-core/src/work.rs.
static uint64_t handler_steps = 0;

__attribute__((noinline)) static void burn(uint64_t steps) {
    uint64_t state = 0x9E3779B97F4A7C15;
    asm volatile("" : "+r"(state));
    for (uint64_t step = 0; step < steps; step++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    asm volatile("" : : "r"(state));
}

static int64_t fastest_ns(int tries, uint64_t steps) {
    int64_t fastest = INT64_MAX;
    while (tries--) {
        auto begin = std::chrono::steady_clock::now();
        burn(steps);
        std::chrono::nanoseconds took = std::chrono::steady_clock::now() - begin;
        fastest = std::min<int64_t>(fastest, took.count());
    }
    return std::max<int64_t>(fastest, 1);
}

static uint64_t steps_in(unsigned us) {
    uint64_t steps = 1024;
    while (fastest_ns(3, steps) < 1000000) {
        steps *= 2;
    }
    auto wanted = (unsigned __int128) steps * us * 1000 / (uint64_t) fastest_ns(16, steps);
    return std::max<uint64_t>((uint64_t) wanted, 1);
}

static void handle() {
    if (handler_steps) {
        burn(handler_steps);
    }
}

// What our servers do too: as many files as allowed, and no huge pages that would make memory figures a matter of luck.
static void prepare_process() {
    rlimit limit;
    if (!getrlimit(RLIMIT_NOFILE, &limit)) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
}

static void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (pthread_setaffinity_np(pthread_self(), sizeof set, &set)) {
        fail("cannot run on CPU " + std::to_string(cpu));
    }
}

// A free port that the workers can share: uSockets itself sets SO_REUSEPORT only where a port is named. The socket never listens.
static int take_port(const std::string &host) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    sockaddr_in address{};
    socklen_t length = sizeof address;
    address.sin_family = AF_INET;
    if (fd < 0 || inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1
        || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) || bind(fd, (sockaddr *) &address, length)
        || getsockname(fd, (sockaddr *) &address, &length)) {
        fail("cannot take a port on " + host);
    }
    return ntohs(address.sin_port);
}

// To every member on this worker, the sender included, and by one message each to the other workers.
static void publish(uWS::App *own, const std::string &topic, std::string_view message, uWS::OpCode opcode) {
    own->publish(topic, message, opcode);
    for (Worker &worker : workers) {
        if (worker.app != own) {
            worker.loop->defer([app = worker.app, topic, message = std::string(message), opcode] {
                app->publish(topic, message, opcode);
            });
        }
    }
}

static uWS::App::WebSocketBehavior<Connection> behavior() {
    uWS::App::WebSocketBehavior<Connection> behavior;
    behavior.compression = uWS::DISABLED;
    behavior.maxPayloadLength = 16 * 1024 * 1024;
    behavior.maxBackpressure = 16 * 1024 * 1024;
    behavior.closeOnBackpressureLimit = true;
    return behavior;
}

static void build(uWS::App *app) {
    uWS::App::WebSocketBehavior<Connection> echo = behavior();
    echo.message = [](auto *ws, std::string_view message, uWS::OpCode opcode) {
        handle();
        ws->send(message, opcode);
    };
    app->ws<Connection>("/ws", std::move(echo));

    uWS::App::WebSocketBehavior<Connection> broadcast = behavior();
    broadcast.upgrade = [](auto *response, auto *request, auto *context) {
        response->template upgrade<Connection>(
            {std::string(request->getParameter(0))}, request->getHeader("sec-websocket-key"),
            request->getHeader("sec-websocket-protocol"), request->getHeader("sec-websocket-extensions"), context);
    };
    broadcast.open = [](auto *ws) { ws->subscribe(ws->getUserData()->topic); };
    broadcast.message = [app](auto *ws, std::string_view message, uWS::OpCode opcode) {
        handle();
        publish(app, ws->getUserData()->topic, message, opcode);
    };
    app->ws<Connection>("/broadcast/:room", std::move(broadcast));
}

// Runs on the worker's thread: a loop belongs to the thread that made it.
static void work(unsigned index, const Options &options, int port, std::promise<void> &listening) {
    if (!options.cpus.empty()) {
        pin(options.cpus[index % options.cpus.size()]);
    }
    uWS::App app;
    build(&app);
    workers[index].app = &app;
    workers[index].loop = uWS::Loop::get();
    bool listening_on = false;
    app.listen(options.host, port, [&](auto *listener) { listening_on = listener != nullptr; });
    if (!listening_on) {
        fail("cannot listen on " + options.host + ":" + std::to_string(port));
    }
    listening.set_value();
    app.run();
}

int main(int argc, char **argv) {
    Options options = parse(argc, argv);
    prepare_process();
    // Threads inherit the mask: signals are taken below and nowhere else.
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);

    if (options.handler_work_us) {
        handler_steps = steps_in(options.handler_work_us);
    }
    workers.resize(options.workers);
    std::vector<std::thread> threads;
    int port = options.port ? options.port : take_port(options.host);
    // One after another, so that nobody is told the address before every worker can be published to.
    for (unsigned index = 0; index < options.workers; index++) {
        std::promise<void> listening;
        threads.emplace_back([&, index] { work(index, options, port, listening); });
        listening.get_future().wait();
    }
    printf("{\"event\":\"ready\",\"server\":\"peer-uwebsockets\",\"version\":\"%s\",\"runtime\":\"uWebSockets 20 (%s)\","
           "\"address\":\"%s:%d\",\"workers\":%u,\"pid\":%d,"
           "\"options\":{\"handler_work_us\":%u}}\n",
           SOURCES, SOURCES, options.host.c_str(), port, options.workers, (int) getpid(), options.handler_work_us);
    fflush(stdout);

    int signal;
    sigwait(&signals, &signal);
    for (Worker &worker : workers) {
        worker.loop->defer([&worker] { worker.app->close(); });
    }
    for (std::thread &thread : threads) {
        thread.join();
    }
    return 0;
}
