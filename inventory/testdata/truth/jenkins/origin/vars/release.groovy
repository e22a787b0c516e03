def call(Map args = [:]) {
  def registry = args.containsKey('registry') ? args.registry : 'registry.example.com'
  def login = fetchSecret(path: args.path)
  def data = login.containsKey('data') ? login.data : error('no data')
  def password = data.password
  withEnv(["REGISTRY_PASSWORD=${password}", "REGISTRY_REGION=eu"]) {
    sh """
      docker login -u ci -p "\${REGISTRY_PASSWORD}" "${registry}" 2>/dev/null
    """
  }
  def npmToken = fetchSecret(path: 'team/npm')
  sh "npm config set //registry.npmjs.org/:_authToken ${npmToken}"
  pushImage(secret: 'secret/team/ci/registry', registry: registry)
  buildStage(label: 'x', registryCredentialsId: args.registryCredentialsId) { echo 'x' }
  stage('scan') {
    def template = '''
      set -eu
      curl -sf -H "Authorization: Bearer $SCAN_TOKEN" "https://api.github.com/repos/__REPO__/alerts"
    '''
    String script = template.replace('__REPO__', args.repo)
    sh(label: 'scan', script: script)
  }
  stage('cloud') {
    def token = sh(script: 'aws secretsmanager get-secret-value --secret-id github/pat | jq -r .SecretString', returnStdout: true)
    httpRequest url: "https://login.microsoftonline.com/$ARM_TENANT_ID/oauth2/token", requestBody: "client_id=$ARM_CLIENT_ID&client_secret=$ARM_CLIENT_SECRET"
    sh 'az keyvault certificate show --vault-name v --name c'
  }
  stage('test') {
    sh 'docker run --rm -v /var/run/docker.sock:/var/run/docker.sock example/tests'
    sh 'ssh host docker run -v /var/run/docker.sock:/var/run/docker.sock example/tests'
    upload()
  }
}

def zeta() { sh 'aws s3 sync a s3://first/a' }

def alpha() { sh 'aws s3 sync b s3://second/b' }

def upload() {
  def name = currentName()
  withEnv(["DEPLOY_KEY_NAME=${name}", "CACHE_TOKEN=${name}"]) { sh 'make upload' }
}

def currentName() { return readFile('name').trim() }
