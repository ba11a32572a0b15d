<?php
// PHP's curl extension: JSON, and an upload.

function call(string $url, array $options = []): array
{
    $curl = curl_init($url);
    curl_setopt_array($curl, $options + [CURLOPT_RETURNTRANSFER => true, CURLOPT_FAILONERROR => true]);
    $body = curl_exec($curl);
    if ($body === false) {
        fwrite(STDERR, curl_error($curl) . "\n");
        exit(1);
    }
    return json_decode($body, true);
}

function check(bool $fine): void
{
    if (!$fine) {
        fwrite(STDERR, "a wrong answer\n");
        exit(1);
    }
}

$base = $argv[1];
check(call("$base/weather?city=Paris")["city"] === "Paris");
$upload = [CURLOPT_POST => true, CURLOPT_POSTFIELDS => str_repeat("x", 100000)];
check(call("$base/upload", $upload)["received"] === 100000);
echo "done\n";
