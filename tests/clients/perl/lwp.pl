# Perl's LWP::UserAgent: JSON, and an upload.
use strict;
use warnings;
use JSON::PP;
use LWP::UserAgent;

my $base = $ARGV[0];
my $agent = LWP::UserAgent->new;
my $weather = $agent->get("$base/weather?city=Paris");
die $weather->status_line unless $weather->is_success;
die $weather->content unless decode_json($weather->content)->{city} eq "Paris";
my $upload = $agent->post("$base/upload", Content => "x" x 100_000);
die $upload->status_line unless $upload->is_success;
die $upload->content unless decode_json($upload->content)->{received} == 100_000;
print "done\n";
