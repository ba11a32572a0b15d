# Ruby's net/http: JSON, and two requests on one connection.
require "json"
require "net/http"

base = ARGV.fetch(0)
weather = Net::HTTP.get_response(URI("#{base}/weather?city=Paris"))
raise weather.body unless weather.is_a?(Net::HTTPOK) && JSON.parse(weather.body)["city"] == "Paris"

uri = URI(base)
Net::HTTP.start(uri.host, uri.port, use_ssl: true) do |http|
  ask = { model: "mock", messages: [{ role: "user", content: "hello" }] }
  answer = http.post("/v1/chat/completions", ask.to_json, "content-type" => "application/json")
  raise answer.body unless JSON.parse(answer.body).dig("choices", 0, "message", "content")

  upload = http.post("/upload", "x" * 100_000)
  raise upload.body unless JSON.parse(upload.body) == { "received" => 100_000 }
end
puts "done"
